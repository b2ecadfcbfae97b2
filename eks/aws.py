"""AWS: clients with a person's own credentials, and AWS's refusals as the lab's errors.

`ask`, `find` and `pages` are how the rest of `eks` calls AWS. What AWS throttles, or fails to
answer, is asked again for a while; all else that it refuses ends in an error that says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
    wait_fixed,
)

from eks.environment import FOLDER, Environment
from lab.errors import (
    AccountError,
    CloudBusy,
    LabError,
    MissingPermission,
    NameTaken,
    PromotionError,
    QuotaReached,
    RegionLacks,
)
from lab.wait import NotYet

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

PATIENCE = 90  # seconds for one question; AWS's own budgets refill within that
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
    """What it means that AWS, or boto3, says something of this form."""

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
# By the code of a refusal, as AWS's API references have them; the first that fits counts.
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
# By the class of what boto3 raises when there is no answer.
UNSENT = (
    Meaning(re.compile("^(No|Partial)Credentials|^NoAuthToken"), AccountError, SIGN_IN),
    Meaning(re.compile("^ProfileNotFound"), AccountError, PROFILE),
    Meaning(re.compile("SSO|^Login|Retrieval|RefreshWithMFA"), AccountError, AGAIN),
    Meaning(re.compile("Region|^UnknownEndpoint|^EndpointResolution"), RegionLacks, OTHER_REGION),
    Meaning(re.compile("Connect|Timeout|HTTPClient|SSL|Streaming"), CloudBusy, LATER),
)
# By what a text quotes; whole sentences, too, since CloudFormation gives no codes.
QUOTED = (
    Meaning(re.compile("ExpiredToken|security token .* expired"), AccountError, AGAIN),
    Meaning(re.compile("Throttl|Rate exceeded|RequestLimitExceeded"), CloudBusy, LATER),
    Meaning(re.compile("AlreadyExists|already exists"), NameTaken, OTHER_NAME),
    Meaning(
        re.compile("(Limit|Quota)Exceeded|maximum number of|MaxSpotInstanceCount"),
        QuotaReached,
        MORE,
    ),
    Meaning(
        re.compile("UnsupportedAvailabilityZone|not supported in your requested|OptInRequired"),
        RegionLacks,
        OTHER_REGION,
    ),
)
# S3's operations that are not called like the action that allows them; elsewhere the names agree.
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


@dataclass(frozen=True)
class Aws:
    """One region, as the person who runs the command: by profile, single sign-on or environment."""

    region: str

    def client(self, service: str) -> Any:
        """boto3's client for a service, the same at each call."""
        if service not in self.clients:
            with errors_known(f"be used for {service}"):
                self.clients[service] = self.new(service)
        return self.clients[service]

    def new(self, service: str) -> Any:
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
        """What each ARN of this region begins with: `aws`, elsewhere `aws-cn` or `aws-us-gov`."""
        with errors_known(f"find region {self.region}"):
            return str(self.session.get_partition_for_region(self.region))


def note_service(parsed: dict[str, Any], model: Any, **_: object) -> None:
    """The answer says whose it is: a refusal names its operation, but not the service."""
    service = model.service_model.signing_name
    parsed.setdefault("ResponseMetadata", {}).setdefault("Service", service)


# --- Asking -------------------------------------------------------------------------------------


def ask(doing: str, call: Callable[..., Any], **arguments: Any) -> Any:
    """What AWS answered. `doing` completes "AWS did not let us ...". Raises LabError's children."""

    def attempt() -> Any:
        with errors_known(doing):
            return call(**arguments)

    patient = Retrying(
        retry=retry_if_exception_type(CloudBusy),
        stop=stop_after_delay(PATIENCE),
        wait=wait_exponential_jitter(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE, jitter=FIRST_PAUSE),
        reraise=True,
    )
    return patient(attempt)


def find(doing: str, call: Callable[..., Any], **arguments: Any) -> Any:
    """What AWS answered, or None when it says that there is no such thing."""
    from botocore.exceptions import ClientError

    def look(**given: Any) -> Any:
        try:
            return call(**given)
        except ClientError as error:
            if ABSENT.search(code(error)):
                return None
            raise

    return ask(doing, look, **arguments)


def pages(doing: str, client: Any, operation: str, key: str, **arguments: Any) -> list[Any]:
    """All entries that the pages of this operation hold under `key`; none if it lists nothing."""
    paginator = client.get_paginator(operation)

    def whole() -> list[Any]:
        return [entry for page in paginator.paginate(**arguments) for entry in page.get(key, [])]

    return find(doing, whole) or []


def settled(check: Callable[[], Any], *, what: str, timeout: float, interval: float = 5) -> Any:
    """What `check` returned as soon as it raised no NotYet. Raises CloudBusy after `timeout`."""
    retrying = Retrying(
        retry=retry_if_exception_type(NotYet),
        stop=stop_after_delay(timeout),
        wait=wait_fixed(interval),
    )
    try:
        return retrying(check)
    except RetryError as error:
        last = error.last_attempt.exception()
        raise CloudBusy(f"{what} was not ready after {timeout:.0f} s: {last}", LATER) from last


# --- What AWS refuses ---------------------------------------------------------------------------


@contextmanager
def errors_known(doing: str) -> Iterator[None]:
    """boto3's exceptions as the lab's errors."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ResponseParserError as error:  # of what is between us and AWS: a proxy, a load balancer
        raise CloudBusy(f"could not {doing}: what answered is not AWS", LATER) from error
    except ClientError as error:
        raise refusal(doing, error) from error
    except BotoCoreError as error:
        raise unsent(doing, error) from error


def refusal(doing: str, error: ClientError) -> LabError:
    """What AWS's answer means."""
    said = str(error.response.get("Error", {}).get("Message", ""))
    if DENIED.search(code(error)) or SAYS_ACTION.search(said):
        return missing_permission(doing, error, ENCODED.sub("", said))
    for form, kind, fix in REFUSALS:
        if form.search(code(error)):
            # What AWS says about a bad signature may quote the request, a session's token and all.
            detail = "" if kind is AccountError else f": {said}"
            return kind(f"AWS did not let us {doing}: {code(error)}{detail}", fix)
    if status(error) >= 500:
        return CloudBusy(f"AWS could not {doing}: {code(error)}: {said}", LATER)
    return PromotionError(f"AWS did not let us {doing}: {code(error)}: {said}", "correct that")


def missing_permission(doing: str, error: ClientError, said: str) -> LabError:
    """The one action that is missing: as AWS names it, else that of the operation."""
    named = SAYS_ACTION.search(said)
    action = named["action"] if named else action_of(error)
    resource = SAYS_RESOURCE.search(said)
    where = f" on {resource['resource']}" if resource else ""
    reason = SAYS_REASON.search(said)
    why = f" ({reason[0]})" if reason else ""
    return MissingPermission(
        f"AWS did not let us {doing}: {action} is not allowed{where}{why}",
        f"have the account's administrator allow {action} to you{where}",
    )


def action_of(error: ClientError) -> str:
    """The IAM action of the operation that was refused."""
    service = error.response.get("ResponseMetadata", {}).get("Service", "?")
    operation = error.operation_name
    return f"{service}:{S3_ACTIONS.get(operation, operation) if service == 's3' else operation}"


def unsent(doing: str, error: BotoCoreError) -> LabError:
    """What boto3's own failure means."""
    if is_of_no_region(error):
        return RegionLacks(f"could not {doing}: {error}", OTHER_REGION)
    for form, kind, fix in UNSENT:
        if form.search(type(error).__name__):
            return kind(f"could not {doing}: {error}", fix)
    return PromotionError(f"could not {doing}: {error}", "correct that")


def is_of_no_region(error: BotoCoreError) -> bool:
    """Whether an address did not answer because it is of a region that AWS does not have."""
    import boto3

    url = str(error.kwargs.get("endpoint_url", ""))
    if ".amazonaws.com" not in url:
        return False
    return not any(f".{name}." in url for name in boto3.Session().get_available_regions("ec2"))


def code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def meant(what: str, said: str, log: Path | None = None, fix: str = "correct that") -> LabError:
    """The error that a text stands for in which AWS is quoted: eksctl's, CloudFormation's."""
    if named := SAYS_ACTION.search(said):
        allow = f"have the account's administrator allow {named['action']} to you"
        return MissingPermission(f"{what}: {named['action']} is not allowed", allow, log)
    for form, kind, known in QUOTED:
        if form.search(said):
            return kind(f"{what}\n{said}", known, log)
    return PromotionError(f"{what}\n{said}", fix, log)


# --- Before anything is made --------------------------------------------------------------------


def whoami(aws: Aws) -> str:
    """The account that the credentials are of."""
    answer = ask("ask whose credentials these are", aws.client("sts").get_caller_identity)
    return str(answer["Account"])


def check_account(aws: Aws, environment: Environment) -> None:
    """Raises AccountError unless the credentials are of the environment's account."""
    found = whoami(aws)
    if found != environment.account:
        raise AccountError(
            f"these credentials are of account {found}; environment {environment.name} is in"
            f" {environment.account}",
            "use another profile (AWS_PROFILE), or correct account in"
            f" {FOLDER / environment.name}.toml",
        )


def region_offers(aws: Aws, instance_types: Collection[str]) -> None:
    """Raises RegionLacks unless the region has machines of each of these types."""
    wanted = sorted(set(instance_types))
    if not wanted:
        return
    found = pages(
        f"ask which machines {aws.region} has",
        aws.client("ec2"),
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="region",
        Filters=[{"Name": "instance-type", "Values": wanted}],
    )
    if lacking := sorted(set(wanted) - {offer["InstanceType"] for offer in found}):
        raise RegionLacks(
            f"{aws.region} has no machines of type {', '.join(lacking)}",
            "choose another type in eks/cluster.yaml, or another region",
        )


def described(aws: Aws, cluster: str) -> Any:
    """What EKS says about a cluster: its state, its address, its network; None without one."""
    found = find(f"look at cluster {cluster}", aws.client("eks").describe_cluster, name=cluster)
    return found and found["cluster"]


def unless_foreign(look: Callable[..., Any], *arguments: Any) -> Any:
    """What `look` found; None when it is not this environment's, and so not ours to remove."""
    try:
        return look(*arguments)
    except NameTaken:
        return None


def foreign(kind: str, name: str, environment: Environment) -> NameTaken:
    """Something that is there already, and that no `apply` of this environment has made."""
    return NameTaken(
        f"there is a {kind} {name} without the tags {tags_shown(environment)}:"
        " it is somebody else's",
        f"choose other names in {FOLDER / environment.name}.toml, or remove it",
    )


def tags_shown(environment: Environment) -> str:
    """The environment's tags, as a person reads them."""
    return " and ".join(f"{key}={value}" for key, value in environment.tags.items())
