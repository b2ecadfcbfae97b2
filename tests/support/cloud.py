"""AWS, as moto's server plays it; and an eksctl that does there what the real one does in AWS.

Four things are added to moto, each by AWS's API reference. EKS has neither Pod Identity
associations nor add-ons there: `ASSOCIATIONS` and `ADDONS` keep them, `Answers` answers for them,
with the errors that AWS documents. A cluster there says nothing of its network and its nodes'
security group, and has no log group. And moto counts every condition of a bucket's policy as
fulfilled, so that "deny what comes without TLS" would deny all: here a call has TLS unless
`Cloud.plain` says otherwise.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import boto3
import botocore.loaders
import pytest
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.eks import urls
from moto.eks.exceptions import (
    InvalidParameterException,
    ResourceInUseException,
    ResourceNotFoundException,
)
from moto.eks.models import EKSBackend
from moto.eks.responses import EKSResponse
from moto.iam.models import iam_backends
from moto.logs.models import logs_backends
from moto.moto_api._internal import moto_api_backend
from moto.s3.models import FakeBucket
from moto.server import ThreadedMotoServer

from eks import environment
from eks.aws import Aws
from eks.environment import Environment
from eks.ledger import Ledger
from eks.site import Site
from lab.config import TREE
from tests.support import eksctl

ACCOUNT = "123456789012"  # moto's own
REGION = "eu-central-1"
PAIR = tuple[str, str, str]  # account, region, cluster


# --- What moto lacks ----------------------------------------------------------------------------

ASSOCIATIONS: dict[PAIR, dict[str, dict[str, Any]]] = {}
ADDONS: dict[PAIR, dict[str, dict[str, Any]]] = {}
AGENT_STATES: list[str] = []  # what the next looks at an add-on see; ACTIVE after that


class Answers:
    """EKS's answers about associations and add-ons: methods for moto's EKSResponse."""

    eks_backend: EKSBackend
    current_account: str
    region: str
    partition: str
    _get_param: Callable[..., Any]

    def cluster(self) -> PAIR:
        """The cluster that the call is about. Raises ResourceNotFoundException."""
        name = self._get_param("name") or self._get_param("clusterName")
        if name not in self.eks_backend.clusters:
            raise ResourceNotFoundException(message=f"No cluster found for name: {name}.")
        return self.current_account, self.region, name

    def arn(self, kind: str, *parts: str) -> str:
        return f"arn:aws:eks:{self.region}:{self.current_account}:{kind}/{'/'.join(parts)}"

    def create_pod_identity_association(self) -> ActionResult:
        cluster = self.cluster()
        known = ASSOCIATIONS.setdefault(cluster, {})
        wanted = {key: self._get_param(key) for key in ("namespace", "serviceAccount", "roleArn")}
        for other in known.values():
            if whose(other) == whose(wanted):
                raise ResourceInUseException(
                    message=f"Association already exists: {other['associationId']}"
                )
        self.refuse_unknown_role(wanted["roleArn"])
        name = f"a-{uuid.uuid4().hex[:17]}"
        known[name] = {
            **wanted,
            "clusterName": cluster[2],
            "associationId": name,
            "associationArn": self.arn("podidentityassociation", cluster[2], name),
            "tags": self._get_param("tags") or {},
            "createdAt": datetime.now(UTC),
        }
        return ActionResult({"association": known[name]})

    def refuse_unknown_role(self, role: str) -> None:
        known = iam_backends[self.current_account]["aws"].get_roles()
        if role not in {entry.arn for entry in known}:
            raise InvalidParameterException(message=f"Role {role} does not exist.")

    def association(self) -> dict[str, Any]:
        name = self._get_param("associationId")
        found = ASSOCIATIONS.get(self.cluster(), {}).get(name)
        if found is None:
            raise ResourceNotFoundException(message=f"No association found for id: {name}.")
        return found

    def describe_pod_identity_association(self) -> ActionResult:
        return ActionResult({"association": self.association()})

    def list_pod_identity_associations(self) -> ActionResult:
        found = list(ASSOCIATIONS.get(self.cluster(), {}).values())
        for key in ("namespace", "serviceAccount"):
            if wanted := self._get_param(key):
                found = [entry for entry in found if entry[key] == wanted]
        shown = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
        return ActionResult({"associations": [{key: e[key] for key in shown} for e in found]})

    def update_pod_identity_association(self) -> ActionResult:
        found = self.association()
        self.refuse_unknown_role(role := self._get_param("roleArn"))
        found["roleArn"] = role
        return ActionResult({"association": found})

    def delete_pod_identity_association(self) -> ActionResult:
        found = self.association()
        del ASSOCIATIONS[self.cluster()][found["associationId"]]
        return ActionResult({"association": found})

    def create_addon(self) -> ActionResult:
        cluster = self.cluster()
        name = self._get_param("addonName")
        if name in ADDONS.setdefault(cluster, {}):
            raise ResourceInUseException(message="Addon already exists.")
        ADDONS[cluster][name] = {
            "addonName": name,
            "clusterName": cluster[2],
            "addonArn": self.arn("addon", cluster[2], name, uuid.uuid4().hex),
            "tags": self._get_param("tags") or {},
            "configurationValues": self._get_param("configurationValues") or "",
        }
        return ActionResult({"addon": {**ADDONS[cluster][name], "status": "CREATING"}})

    def addon(self) -> dict[str, Any]:
        name = self._get_param("addonName")
        found = ADDONS.get(self.cluster(), {}).get(name)
        if found is None:
            raise ResourceNotFoundException(message=f"No addon: {name} found in cluster.")
        return found

    def describe_addon(self) -> ActionResult:
        state = AGENT_STATES.pop(0) if AGENT_STATES else "ACTIVE"
        return ActionResult({"addon": {**self.addon(), "status": state}})

    def list_addons(self) -> ActionResult:
        return ActionResult({"addons": sorted(ADDONS.get(self.cluster(), {}))})

    def delete_addon(self) -> ActionResult:
        found = self.addon()
        del ADDONS[self.cluster()][found["addonName"]]
        return ActionResult({"addon": {**found, "status": "DELETING"}})


def whose(association: dict[str, Any]) -> tuple[str, str]:
    return association["namespace"], association["serviceAccount"]


def extend_moto() -> None:
    """moto answers for what it lacks, and knows TLS."""
    for path in ("pod-identity-associations", "addons"):
        for end in ("$", "/(?P<id>[^/]+)$"):
            urls.url_paths[f"{{0}}/clusters/(?P<name>[^/]+)/{path}{end}"] = EKSResponse.dispatch
    for name, method in vars(Answers).items():
        if callable(method) and not hasattr(EKSResponse, name):
            setattr(EKSResponse, name, method)
    EKSBackend.create_cluster = with_its_logs(in_its_network(EKSBackend.create_cluster))
    as_it_is = FakeBucket.get_permission

    def by_tls(bucket: Any, action: str, resource: str) -> Any:
        plain = b"aws:SecureTransport" in (bucket.policy or b"") and not Cloud.plain
        return as_it_is(replaced(bucket) if plain else bucket, action, resource)

    FakeBucket.get_permission = by_tls


def in_its_network(create: Callable[..., Any]) -> Callable[..., Any]:
    """A cluster says in which network it is, and of which security group its nodes are."""

    def made(backend: EKSBackend, *given: Any, **named: Any) -> Any:
        cluster = create(backend, *given, **named)
        ec2 = ec2_backends[backend.account_id][backend.region_name]
        subnet = ec2.get_subnet(cluster.resources_vpc_config["subnetIds"][0])
        name = f"eks-cluster-sg-{cluster.name}"
        group = ec2.create_security_group(name, "EKS's own", subnet.vpc_id)
        cluster.resources_vpc_config |= {"vpcId": subnet.vpc_id, "clusterSecurityGroupId": group.id}
        return cluster

    return made


def with_its_logs(create: Callable[..., Any]) -> Callable[..., Any]:
    """A cluster that logs has a group for that, which is kept for ever and outlives it."""

    def made(backend: EKSBackend, *given: Any, **named: Any) -> Any:
        cluster = create(backend, *given, **named)
        found = logs_backends[backend.account_id][backend.region_name]
        group = f"/aws/eks/{cluster.name}/cluster"
        on = any(kind["enabled"] for kind in cluster.logging["clusterLogging"])
        if on and group not in found.groups:
            found.create_log_group(group, {})
        return cluster

    return made


def replaced(bucket: Any) -> Any:
    """The bucket without its policy, which denies nothing that comes by TLS."""

    class Without:
        policy = None

    return Without()


# --- The server ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """AWS for one test: empty at first, reached by the environment's variables as AWS would be."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    plain: ClassVar[bool] = False  # whether calls come without TLS
    every: bool = False  # whether sweeps are over every call
    aws: Aws = field(default_factory=lambda: Aws(REGION))

    def client(self, service: str) -> Any:
        """The administrator's."""
        return self.aws.client(service)

    def site(self, **chosen: Any) -> Site:
        """Staging in this account, with a ledger and a folder of its own."""
        known = replace(staging(), **chosen)
        folder = self.folder / known.name
        folder.mkdir(mode=0o700, exist_ok=True)
        aws = Aws(known.region)
        if known.region == REGION:  # boto3's clients take a while to make
            vars(aws).update(session=self.aws.session, clients=self.aws.clients)
        return Site(known, aws, Ledger(folder / "ledger.json"), folder)

    def empty(self) -> Cloud:
        """There is nothing in AWS, and nothing written about it here."""
        reset()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        return self

    def make_cluster(self, site: Site, *addons: str, **changed: Any) -> None:
        """A cluster of the environment's name, with add-ons: as somebody else would make it."""
        name, version = site.environment.cluster, site.environment.kubernetes
        eksctl.make_cluster(self.client, name, **{"version": version, "tags": {}, **changed})
        for addon in addons:
            self.client("eks").create_addon(clusterName=name, addonName=addon)

    def only(self, role: str) -> Callable[[str], Any]:
        """Clients of who has this role, and may do what its policies allow: moto looks from now on.

        The end of the test ends that.
        """
        arn = self.client("iam").get_role(RoleName=role)["Role"]["Arn"]
        said = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="pod")["Credentials"]
        enforce()
        self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", said["AccessKeyId"])
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", said["SecretAccessKey"])
        self.monkeypatch.setenv("AWS_SESSION_TOKEN", said["SessionToken"])
        return Aws(REGION).client

    @contextmanager
    def somebody(self, statements: list[dict[str, Any]]) -> Iterator[Aws]:
        """AWS as a user with this policy; in the block moto looks what anybody may do."""
        iam, name = self.client("iam"), f"user-{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=name)
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="theirs", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        found = Aws(REGION)
        vars(found)["session"] = boto3.Session(
            key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION
        )
        enforce()
        try:
            yield found
        finally:
            enforce(after=float("inf"))

    def as_another_account(self, service: str = "s3") -> Any:
        """A client of somebody who has nothing to do with us."""
        arn = "arn:aws:iam::999999999999:role/somebody"
        said = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="somebody")[
            "Credentials"
        ]
        session: Any = boto3.Session(
            said["AccessKeyId"], said["SecretAccessKey"], said["SessionToken"], REGION
        )
        return session.client(service)

    def install_eksctl(self, version: str = "0.230.0") -> Path:
        """A folder on PATH with an eksctl; a file `stop` there tells it where to fail."""
        folder = self.folder / "bin"
        folder.mkdir()
        program = folder / "eksctl"
        script = Path(eksctl.__file__)
        program.write_text(f'#!/bin/sh\nVERSION={version} exec {sys.executable} {script} "$@"\n')
        program.chmod(0o755)
        self.monkeypatch.setenv("PATH", str(folder), prepend=":")
        return folder


def staging() -> Environment:
    """The environment `staging`, in moto's account."""
    found = environment.load("staging", TREE)
    return replace(found, account=ACCOUNT, region=REGION, bucket="lab-staging", options=())


@contextmanager
def server() -> Iterator[str]:
    """moto's server, at this address."""
    extend_moto()
    found = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    found.start()
    host, port = found.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        found.stop()


def reset() -> None:
    """moto has forgotten everything, and lets everybody do everything."""
    moto_api_backend.reset()
    enforce(after=float("inf"))
    for known in (ASSOCIATIONS, ADDONS):
        known.clear()
    AGENT_STATES.clear()


def enforce(after: float = 0) -> None:
    """moto looks who may do what, after so many calls."""
    settings.INITIAL_NO_AUTH_ACTION_COUNT = after
    ActionAuthenticatorMixin.request_count = 0


# A session reads the descriptions of AWS's services anew, which is most of a client's making.
shared_loader = functools.cache(botocore.loaders.create_loader)


def sign_in(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Whoever asks AWS asks `url`, with keys of nobody; what the person has set up is not seen."""
    monkeypatch.setattr(botocore.loaders, "create_loader", shared_loader)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody-s")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)


# --- Killing ------------------------------------------------------------------------------------


LOOKS = ("Describe", "Get", "Head", "List")  # after one of them nothing is other than before it


class Killed(BaseException):
    """As by `kill -9`: nothing catches it."""


@contextmanager
def watched(at: str, called: Callable[[str], None]) -> Iterator[None]:
    """Call `called` with the name of each operation that changes something in AWS.

    `at` is botocore's event: `before-call`, when the call is not sent yet, or `after-call`, when
    the answer has come and nothing was made of it.
    """
    armed: dict[int, Any] = {}
    as_it_is = Aws.client

    def look(model: Any, **_: object) -> None:
        if not model.name.startswith(LOOKS):
            called(model.name)

    def client(aws: Aws, service: str) -> Any:
        found = as_it_is(aws, service)
        if id(found) not in armed:
            armed[id(found)] = found
            found.meta.events.register_first(at, look)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Aws, "client", client)
        try:
            yield
        finally:
            for found in armed.values():
                found.meta.events.unregister(at, look)


@contextmanager
def killed_at(number: int, at: str) -> Iterator[None]:
    """In the block, the process dies at its n-th call that changes something in AWS."""
    seen = itertools.count(1)

    def count(_: str) -> None:
        if next(seen) == number:
            raise Killed

    with watched(at, count):
        yield


def every_death(
    cloud: Cloud, do: Callable[[Site], object], between: Callable[[], object] = lambda: None
) -> Iterator[tuple[int, str]]:
    """Yield the number of each call that `do` has died at, and when; each time from nothing.

    The calls are the first of each operation that changes something, and with `cloud.every` all of
    them. `between` comes before each `do`: what must be there. When the loop's body runs, `do` is
    dead.
    """

    def again() -> Site:
        cloud.empty()
        between()
        return cloud.site()

    calls: list[str] = []
    site = again()
    with watched("before-call", calls.append):
        do(site)
    firsts = {name: number for number, name in reversed(list(enumerate(calls, 1)))}
    numbers = range(1, len(calls) + 1) if cloud.every else sorted(firsts.values())
    for at, number in itertools.product(("before-call", "after-call"), numbers):
        site = again()
        with pytest.raises(Killed), killed_at(number, at):
            do(site)
        yield number, at


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, which sees the same AWS."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
