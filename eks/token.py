"""`python -m eks.token REGION CLUSTER`: kubectl's credentials for EKS, without the AWS CLI.

The token is a request to STS, signed but not sent: "who am I, as seen by this cluster". EKS sends
it and learns who asks. The algorithm is that of aws-iam-authenticator's README, "API Authorization
from Outside a Cluster".
"""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from eks.aws import Aws, translating_aws_errors
from lab.errors import LabError

HEADER = "x-k8s-aws-id"
PREFIX = "k8s-aws-v1."
URL_SECONDS = 60  # for which STS accepts the signed request
VALID = timedelta(minutes=14)  # EKS accepts a token for 15


def build_credential(region: str, cluster: str) -> dict[str, Any]:
    """Return the ExecCredential that kubectl expects. Raises LabError without AWS credentials."""
    until = datetime.now(UTC) + VALID
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "token": create_token(Aws(region), cluster),
            "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    }


def create_token(aws: Aws, cluster: str) -> str:
    """Return a token for this cluster alone: its name is part of what is signed."""
    sts = aws.create_client("sts")

    def add_cluster(request: Any, **_: object) -> None:
        request.headers[HEADER] = cluster

    sts.meta.events.register("before-sign.sts.GetCallerIdentity", add_cluster)
    with translating_aws_errors(f"sign in to cluster {cluster}"):
        url: str = sts.generate_presigned_url(
            "get_caller_identity", ExpiresIn=URL_SECONDS, HttpMethod="GET"
        )
    return PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def main(arguments: list[str]) -> None:
    region, cluster = arguments
    try:
        print(json.dumps(build_credential(region, cluster)))
    except LabError as error:
        print(f"error: {error.what}\n  try: {error.fix}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
