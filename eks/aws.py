"""AWS clients with the person's own credentials, and AWS's errors as the lab's errors.

The rest of `eks` calls AWS through `call_aws`, `call_or_none` and `list_all`. Throttled calls and
server errors are retried for a while; any other error is raised with what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
)

from eks.environment import FOLDER, Environment
from lab.errors import (
    AccountError,
    CloudBusy,
    LabError,
    MissingPermission,
    NameTaken,
    NotRunningError,
    PromotionError,
    QuotaReached,
    RegionLacks,
)
from lab.wait import NotYet, wait_until

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

PATIENCE = 90  # seconds of retries per call; AWS's rate limits refill within that
FIRST_PAUSE = 1.0  # seconds; doubled each time, and jittered
LONGEST_PAUSE = 20.0
ABSENT = re.compile(r"NotFound|NoSuch|^404$")
DENIED = re.compile(r"^(Client\.)?(AccessDenied\w*|UnauthorizedOperation|Forbidden|403)$")
SAYS_ACTION = re.compile(r"not authorized to perform: (?P<action>[\w-]+:\w+)")
SAYS_RESOURCE = re.compile(r"on resource: (?P<resource>\S+)")
SAYS_REASON = re.compile(r"(with an explicit deny.*|because .*)")
ENCODED = re.compile(r"\s*Encoded authorization failure message:.*", re.DOTALL)

SIGN_IN = "sign in (aws sso login, or aws configure), or name a profile: export AWS_PROFILE=..."
AGAIN = "sign in again (aws sso login), or get new temporary credentials"
CLOCK = "this machine's clock must be right, too"
KEYS = f"sign in again or correct the keys; {CLOCK}; a region may have to be enabled first"
PROFILE = "correct AWS_PROFILE, or write the profile: aws configure sso"
OTHER_REGION = f"correct the region in {FOLDER}/, or enable it in the account's settings"
LATER = "run the same command again in a few minutes: it goes on where it stopped"
MORE = "ask for more in the Service Quotas console, or remove what nobody needs"
OTHER_NAME = f"choose another name in {FOLDER}/, or remove what has it"


class Meaning(NamedTuple):
    """The lab's error, and its fix, for what AWS or boto3 says in this form."""

    form: re.Pattern[str]
    kind: type[LabError]
    fix: str


BAD_KEYS = (
    "^(InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|AuthFailure|InvalidToken"
    "|SignatureDoesNotMatch|InvalidSignature|IncompleteSignature|MissingAuthentication"
    "|NotSignedUp|RequestTimeTooSkewed)"
)
BUSY = (
    "Throttl|TooManyRequests|RequestLimitExceeded|SlowDown|BandwidthLimit|PriorRequestNotComplete"
    "|ServiceUnavailable|InternalError|InternalFailure|^InsufficientInstanceCapacity|^RequestTimeout$"
)
# Matched against the error code, as AWS's API references list them; the first match counts.
REFUSALS = (
    Meaning(re.compile("^(ExpiredToken|RequestExpired|TokenRefresh)"), AccountError, AGAIN),
    Meaning(re.compile(BAD_KEYS), AccountError, KEYS),
    Meaning(re.compile(BUSY), CloudBusy, LATER),
    Meaning(re.compile(r"Already(Exists|Owned)|ResourceInUse|\.Duplicate$"), NameTaken, OTHER_NAME),
    Meaning(re.compile("(Limit|Quota)Exceeded|TooManyBuckets|LimitReached"), QuotaReached, MORE),
    Meaning(
        re.compile("OptInRequired|UnsupportedAvailabilityZone|RegionDisabled|LocationConstraint"),
        RegionLacks,
        OTHER_REGION,
    ),
)
# Matched against the class of boto3's exception when AWS did not answer.
UNSENT = (
    Meaning(re.compile("^(No|Partial)Credentials|^NoAuthToken"), AccountError, SIGN_IN),
    Meaning(re.compile("^ProfileNotFound"), AccountError, PROFILE),
    Meaning(re.compile("SSO|^Login|Retrieval|RefreshWithMFA"), AccountError, AGAIN),
    Meaning(re.compile("Region|^UnknownEndpoint|^EndpointResolution"), RegionLacks, OTHER_REGION),
    Meaning(re.compile("Connect|Timeout|HTTPClient|SSL|Streaming"), CloudBusy, LATER),
)
# Matched against a text that quotes AWS: sentences, too, since CloudFormation gives no codes.
QUOTED = (
    Meaning(re.compile("ExpiredToken|security token .* expired"), AccountError, AGAIN),
    Meaning(re.compile("Throttl|Rate exceeded|RequestLimitExceeded"), CloudBusy, LATER),
    Meaning(re.compile("AlreadyExists|already exists"), NameTaken, OTHER_NAME),
    Meaning(
        # The sentences are EC2's, as an Auto Scaling group's activities quote it without a code.
        re.compile(
            "(Limit|Quota)Exceeded|maximum number of|MaxSpotInstanceCount"
            "|more vCPU capacity than your current|more instances .* than your current"
            "|(?i:max spot instance count exceeded)"
        ),
        QuotaReached,
        MORE,
    ),
    Meaning(
        re.compile("UnsupportedAvailabilityZone|not supported in your requested|OptInRequired"),
        RegionLacks,
        OTHER_REGION,
    ),
)
# S3 operations whose IAM action has another name; all other operations are named like theirs.
S3_ACTIONS = {
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
CLUSTER_SECONDS = 2700  # that EKS and CloudFormation may take for a cluster or a part of it
CLUSTER_INTERVAL = 15.0  # seconds between two looks at it
T = TypeVar("T")


@dataclass(frozen=True)
class Aws:
    """Clients of one region, as the person who runs the command: profile, SSO or environment."""

    region: str

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service, the same one at each call."""
        if service not in self.clients:
            with translating_aws_errors(f"be used for {service}"):
                self.clients[service] = self.create_client(service)
        return self.clients[service]

    def create_client(self, service: str) -> Any:
        """Create a boto3 client of a service that notes the service in each answer."""
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=10,
            read_timeout=60,
        )
        client = self.session.client(service, config=config)
        client.meta.events.register("after-call", note_service)
        return client

    @cached_property
    def clients(self) -> dict[str, Any]:
        return {}

    @cached_property
    def session(self) -> Any:
        import boto3

        return boto3.Session(region_name=self.region)

    @cached_property
    def partition(self) -> str:
        """The partition of this region's ARNs: `aws`, elsewhere `aws-cn` or `aws-us-gov`."""
        with translating_aws_errors(f"find region {self.region}"):
            return str(self.session.get_partition_for_region(self.region))


def note_service(parsed: dict[str, Any], model: Any, **_: object) -> None:
    """Add the service to an answer: an error names its operation, but not the service."""
    service = model.service_model.signing_name
    parsed.setdefault("ResponseMetadata", {}).setdefault("Service", service)


# --- Calls --------------------------------------------------------------------------------------


def call_aws(doing: str, call: Callable[..., Any], **arguments: Any) -> Any:
    """Return AWS's answer. Raises LabError's children.

    `doing` completes "AWS did not let us ...". Retries for PATIENCE seconds while AWS is busy.
    """

    def attempt() -> Any:
        with translating_aws_errors(doing):
            return call(**arguments)

    retrying = Retrying(
        retry=retry_if_exception_type(CloudBusy),
        stop=stop_after_delay(PATIENCE),
        wait=wait_exponential_jitter(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE, jitter=FIRST_PAUSE),
        reraise=True,
    )
    return retrying(attempt)


def call_or_none(doing: str, call: Callable[..., Any], **arguments: Any) -> Any:
    """Return AWS's answer, or None when it says that there is no such thing."""
    from botocore.exceptions import ClientError

    def attempt(**given: Any) -> Any:
        try:
            return call(**given)
        except ClientError as error:
            if ABSENT.search(error_code(error)):
                return None
            raise

    return call_aws(doing, attempt, **arguments)


def list_all(doing: str, client: Any, operation: str, key: str, **arguments: Any) -> list[Any]:
    """Return the entries under `key` of all pages of an operation; none when AWS finds nothing."""
    paginator = client.get_paginator(operation)

    def read_pages() -> list[Any]:
        return [entry for page in paginator.paginate(**arguments) for entry in page.get(key, [])]

    return call_or_none(doing, read_pages) or []


def wait_until_settled(
    check: Callable[[], T], *, what: str, timeout: float, interval: float = 5
) -> T:
    """Return what `check` returns once it raises no NotYet; raise CloudBusy after `timeout` s."""
    return wait_until(
        check, what=what, timeout=timeout, interval=interval, retry=(NotYet,), late=cloud_busy
    )


def cloud_busy(what: str, log: Path | None) -> CloudBusy:
    """Return the error for what AWS has not done in time."""
    return CloudBusy(what, LATER, log)


# --- Errors -------------------------------------------------------------------------------------


@contextmanager
def translating_aws_errors(doing: str) -> Iterator[None]:
    """Raise boto3's exceptions as the lab's errors."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ResponseParserError as error:  # a proxy or load balancer answered
        raise CloudBusy(f"could not {doing}: what answered is not AWS", LATER) from error
    except ClientError as error:
        raise error_from_response(doing, error) from error
    except BotoCoreError as error:
        raise error_from_boto3(doing, error) from error


def error_from_response(doing: str, error: ClientError) -> LabError:
    """Return the lab's error for an error that AWS answered."""
    said = str(error.response.get("Error", {}).get("Message", ""))
    if DENIED.search(error_code(error)) or SAYS_ACTION.search(said):
        return missing_permission_error(doing, error, ENCODED.sub("", said))
    for form, kind, fix in REFUSALS:
        if form.search(error_code(error)):
            # AWS's message about a bad signature may quote the request with its session token.
            detail = "" if kind is AccountError else f": {said}"
            return kind(f"AWS did not let us {doing}: {error_code(error)}{detail}", fix)
    if http_status(error) >= 500:
        return CloudBusy(f"AWS could not {doing}: {error_code(error)}: {said}", LATER)
    return PromotionError(
        f"AWS did not let us {doing}: {error_code(error)}: {said}", "correct that"
    )


def missing_permission_error(doing: str, error: ClientError, said: str) -> LabError:
    """Return the error with the missing action: as AWS names it, else the operation's."""
    named = SAYS_ACTION.search(said)
    action = named["action"] if named else iam_action(error)
    resource = SAYS_RESOURCE.search(said)
    where = f" on {resource['resource']}" if resource else ""
    reason = SAYS_REASON.search(said)
    why = f" ({reason[0]})" if reason else ""
    return MissingPermission(
        f"AWS did not let us {doing}: {action} is not allowed{where}{why}",
        f"have the account's administrator allow {action} to you{where}",
    )


def iam_action(error: ClientError) -> str:
    """Return the IAM action of the refused operation."""
    service = error.response.get("ResponseMetadata", {}).get("Service", "?")
    return name_action(str(service), error.operation_name)


def name_action(service: str, operation: str) -> str:
    """Return the IAM action of an operation of a service, by its signing name."""
    return f"{service}:{S3_ACTIONS.get(operation, operation) if service == 's3' else operation}"


def error_from_boto3(doing: str, error: BotoCoreError) -> LabError:
    """Return the lab's error for a failure of boto3 itself, without an answer of AWS."""
    if is_unknown_region(error):
        return RegionLacks(f"could not {doing}: {error}", OTHER_REGION)
    for form, kind, fix in UNSENT:
        if form.search(type(error).__name__):
            return kind(f"could not {doing}: {error}", fix)
    return PromotionError(f"could not {doing}: {error}", "correct that")


def is_unknown_region(error: BotoCoreError) -> bool:
    """Return whether the endpoint did not answer because AWS has no such region."""
    import boto3

    url = str(error.kwargs.get("endpoint_url", ""))
    if ".amazonaws.com" not in url:
        return False
    return not any(f".{name}." in url for name in boto3.Session().get_available_regions("ec2"))


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def error_from_text(
    what: str, said: str, log: Path | None = None, fix: str = "correct that", context: str = ""
) -> LabError:
    """Return the lab's error for a text that quotes AWS: eksctl's, CloudFormation's.

    `context` is read for its kind, too, and not quoted.
    """
    whole = f"{said}\n{context}"
    if named := SAYS_ACTION.search(whole):
        allow = f"have the account's administrator allow {named['action']} to you"
        return MissingPermission(f"{what}: {named['action']} is not allowed", allow, log)
    for form, kind, known in QUOTED:
        if form.search(whole):
            return kind(f"{what}\n{said}", known, log)
    return PromotionError(f"{what}\n{said}", fix, log)


# --- Checks and lookups -------------------------------------------------------------------------


def whoami(aws: Aws) -> str:
    """Return the account of the credentials."""
    answer = call_aws("ask whose credentials these are", aws.client("sts").get_caller_identity)
    return str(answer["Account"])


def check_account(aws: Aws, environment: Environment) -> None:
    """Raise AccountError unless the credentials are of the environment's account."""
    found = whoami(aws)
    if found != environment.account:
        raise AccountError(
            f"these credentials are of account {found}; environment {environment.name} is in"
            f" {environment.account}",
            "use another profile (AWS_PROFILE), or correct account in"
            f" {FOLDER / environment.name}.toml",
        )


def build_filters(asked: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the filters that EC2 takes: one value for each name."""
    return [{"Name": name, "Values": [value]} for name, value in asked.items()]


def describe_cluster(aws: Aws, cluster: str) -> Any:
    """Return EKS's description of a cluster (state, endpoint, network); None without one."""
    found = call_or_none(
        f"look at cluster {cluster}", aws.client("eks").describe_cluster, name=cluster
    )
    return found and found["cluster"]


def read_network(aws: Aws, cluster: str) -> Mapping[str, Any]:
    """Return the network of a cluster. Raises NotRunningError without a cluster."""
    found = describe_cluster(aws, cluster)
    if not found:
        raise NotRunningError(f"there is no cluster {cluster}", "nox -s eks -- apply")
    network: Mapping[str, Any] = found["resourcesVpcConfig"]
    return network


def list_cluster_parts(aws: Aws, cluster: str, what: str) -> set[str]:
    """Return the names of a cluster's node groups or add-ons, whichever `what` says."""
    doing = f"list the {what} of {cluster}"
    return set(list_all(doing, aws.client("eks"), f"list_{what}", what, clusterName=cluster))


def find_if_ours(find: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `find` returns; None when it raises NameTaken: not ours to remove."""
    try:
        return find(*arguments)
    except NameTaken:
        return None


def foreign_error(kind: str, name: str, environment: Environment) -> NameTaken:
    """Return the error for something that exists and that no `apply` of this environment made."""
    return NameTaken(
        f"there is a {kind} {name} without the tags {format_tags(environment)}:"
        " it is somebody else's",
        f"choose other names in {FOLDER / environment.name}.toml, or remove it",
    )


def format_tags(environment: Environment) -> str:
    """Return the environment's tags as text for a person."""
    return " and ".join(f"{key}={value}" for key, value in environment.tags.items())
