"""`python -m eks.token REGION CLUSTER`: what kubectl shows to an EKS cluster, without the AWS CLI.

The token is a request to STS, signed but not sent: "who am I, as seen by this cluster". EKS sends
it and knows who asks. The algorithm is that of aws-iam-authenticator's README, "API Authorization
from Outside a Cluster".
"""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from eks.aws import Aws, errors_known
from lab.errors import LabError

HEADER = "x-k8s-aws-id"
PREFIX = "k8s-aws-v1."
URL_SECONDS = 60  # for which STS takes the signed request
VALID = timedelta(minutes=14)  # EKS takes a token for 15


def credential(region: str, cluster: str) -> dict[str, Any]:
    """The answer that kubectl expects. Raises LabError when there are no credentials."""
    until = datetime.now(UTC) + VALID
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "token": token(Aws(region), cluster),
            "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    }


def token(aws: Aws, cluster: str) -> str:
    """A token for this cluster alone: its name is part of what is signed."""
    sts = aws.new("sts")

    def name_cluster(request: Any, **_: object) -> None:
        request.headers[HEADER] = cluster

    sts.meta.events.register("before-sign.sts.GetCallerIdentity", name_cluster)
    with errors_known(f"sign in to cluster {cluster}"):
        url: str = sts.generate_presigned_url(
            "get_caller_identity", ExpiresIn=URL_SECONDS, HttpMethod="GET"
        )
    return PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def main(arguments: list[str]) -> None:
    region, cluster = arguments
    try:
        print(json.dumps(credential(region, cluster)))
    except LabError as error:
        print(f"error: {error.what}\n  try: {error.fix}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
