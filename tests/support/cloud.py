"""AWS, as moto's server emulates it, with an eksctl that does there what the real one does in AWS.

Five things are added to moto, each by AWS's API reference. Its EKS has neither Pod Identity
associations nor add-ons: `ASSOCIATIONS` and `ADDONS` keep them, `Answers` serves them, with the
errors that AWS documents. Its clusters report neither their network nor their nodes' security
group, and have no log group. And moto takes every condition of a bucket's policy as fulfilled, so
that "deny what comes without TLS" would deny everything: here a call has TLS unless `Cloud.plain`
is true. Its Service Quotas know none of EC2's: `QUOTAS` has them.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
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
from unittest import mock

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
from moto.servicequotas.models import ServiceQuotasBackend

from eks import environment
from eks.aws import Aws
from eks.environment import Environment
from eks.ledger import Ledger
from eks.site import Site
from lab.config import KIT
from tests.support import eksctl

ACCOUNT = "123456789012"  # moto's own
REGION = "eu-central-1"
PAIR = tuple[str, str, str]  # account, region, cluster


# --- What moto lacks ----------------------------------------------------------------------------

ASSOCIATIONS: dict[PAIR, dict[str, dict[str, Any]]] = {}
ADDONS: dict[PAIR, dict[str, dict[str, Any]]] = {}
QUOTAS: dict[str, float] = {}  # of EC2, by code; those that a test sets
PLENTY = 64.0  # what the others are
AGENT_STATES: list[str] = []  # the add-on's states in the next calls; ACTIVE after them


class Answers:
    """EKS's calls about associations and add-ons: methods for moto's EKSResponse."""

    eks_backend: EKSBackend
    current_account: str
    region: str
    partition: str
    _get_param: Callable[..., Any]

    def find_cluster(self) -> PAIR:
        """Return the cluster that the call names. Raises ResourceNotFoundException."""
        name = self._get_param("name") or self._get_param("clusterName")
        if name not in self.eks_backend.clusters:
            raise ResourceNotFoundException(message=f"No cluster found for name: {name}.")
        return self.current_account, self.region, name

    def arn(self, kind: str, *parts: str) -> str:
        return f"arn:aws:eks:{self.region}:{self.current_account}:{kind}/{'/'.join(parts)}"

    def create_pod_identity_association(self) -> ActionResult:
        cluster = self.find_cluster()
        known = ASSOCIATIONS.setdefault(cluster, {})
        wanted = {key: self._get_param(key) for key in ("namespace", "serviceAccount", "roleArn")}
        for other in known.values():
            if association_key(other) == association_key(wanted):
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

    def find_association(self) -> dict[str, Any]:
        name = self._get_param("associationId")
        found = ASSOCIATIONS.get(self.find_cluster(), {}).get(name)
        if found is None:
            raise ResourceNotFoundException(message=f"No association found for id: {name}.")
        return found

    def describe_pod_identity_association(self) -> ActionResult:
        return ActionResult({"association": self.find_association()})

    def list_pod_identity_associations(self) -> ActionResult:
        found = list(ASSOCIATIONS.get(self.find_cluster(), {}).values())
        for key in ("namespace", "serviceAccount"):
            if wanted := self._get_param(key):
                found = [entry for entry in found if entry[key] == wanted]
        shown = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
        return ActionResult({"associations": [{key: e[key] for key in shown} for e in found]})

    def update_pod_identity_association(self) -> ActionResult:
        found = self.find_association()
        self.refuse_unknown_role(role := self._get_param("roleArn"))
        found["roleArn"] = role
        return ActionResult({"association": found})

    def delete_pod_identity_association(self) -> ActionResult:
        found = self.find_association()
        del ASSOCIATIONS[self.find_cluster()][found["associationId"]]
        return ActionResult({"association": found})

    def create_addon(self) -> ActionResult:
        cluster = self.find_cluster()
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

    def find_addon(self) -> dict[str, Any]:
        name = self._get_param("addonName")
        found = ADDONS.get(self.find_cluster(), {}).get(name)
        if found is None:
            raise ResourceNotFoundException(message=f"No addon: {name} found in cluster.")
        return found

    def describe_addon(self) -> ActionResult:
        state = AGENT_STATES.pop(0) if AGENT_STATES else "ACTIVE"
        return ActionResult({"addon": {**self.find_addon(), "status": state}})

    def list_addons(self) -> ActionResult:
        return ActionResult({"addons": sorted(ADDONS.get(self.find_cluster(), {}))})

    def delete_addon(self) -> ActionResult:
        found = self.find_addon()
        del ADDONS[self.find_cluster()][found["addonName"]]
        return ActionResult({"addon": {**found, "status": "DELETING"}})


def association_key(association: dict[str, Any]) -> tuple[str, str]:
    return association["namespace"], association["serviceAccount"]


def extend_moto() -> None:
    """Add to moto what it lacks, and conditions on TLS."""
    for path in ("pod-identity-associations", "addons"):
        for end in ("$", "/(?P<id>[^/]+)$"):
            urls.url_paths[f"{{0}}/clusters/(?P<name>[^/]+)/{path}{end}"] = EKSResponse.dispatch
    for name, method in vars(Answers).items():
        if callable(method) and not hasattr(EKSResponse, name):
            setattr(EKSResponse, name, method)
    ServiceQuotasBackend.get_service_quota = get_service_quota
    EKSBackend.create_cluster = with_log_group(with_network(EKSBackend.create_cluster))
    original = FakeBucket.get_permission

    def get_permission(bucket: Any, action: str, resource: str) -> Any:
        plain = b"aws:SecureTransport" in (bucket.policy or b"") and not Cloud.plain
        return original(without_policy(bucket) if plain else bucket, action, resource)

    FakeBucket.get_permission = get_permission


def get_service_quota(_: object, service_code: str, quota_code: str) -> Any:
    """Return a quota of EC2, in the place of moto's `get_service_quota`."""
    assert service_code == "ec2"
    value = QUOTAS.get(quota_code, PLENTY)
    return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": value}


def with_network(create: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `create_cluster`: a cluster reports its network and its nodes' security group."""

    def create_cluster(backend: EKSBackend, *given: Any, **named: Any) -> Any:
        cluster = create(backend, *given, **named)
        ec2 = ec2_backends[backend.account_id][backend.region_name]
        subnet = ec2.get_subnet(cluster.resources_vpc_config["subnetIds"][0])
        name = f"eks-cluster-sg-{cluster.name}"
        group = ec2.create_security_group(name, "EKS's own", subnet.vpc_id)
        cluster.resources_vpc_config |= {"vpcId": subnet.vpc_id, "clusterSecurityGroupId": group.id}
        return cluster

    return create_cluster


def with_log_group(create: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `create_cluster`: a cluster that logs has a log group, which never expires."""

    def create_cluster(backend: EKSBackend, *given: Any, **named: Any) -> Any:
        cluster = create(backend, *given, **named)
        found = logs_backends[backend.account_id][backend.region_name]
        group = f"/aws/eks/{cluster.name}/cluster"
        on = any(kind["enabled"] for kind in cluster.logging["clusterLogging"])
        if on and group not in found.groups:
            found.create_log_group(group, {})
        return cluster

    return create_cluster


def without_policy(bucket: Any) -> Any:
    """Return the bucket without its policy, which denies nothing that comes by TLS."""

    class Without:
        policy = None

    return Without()


# --- The server ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """AWS for one test: empty at first, reached by environment variables as AWS itself."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    plain: ClassVar[bool] = False  # whether calls come without TLS
    every: bool = False  # whether sweeps cover every call
    aws: Aws = field(default_factory=lambda: Aws(REGION))

    def client(self, service: str) -> Any:
        """Return the administrator's client of a service."""
        return self.aws.client(service)

    def site(self, **chosen: Any) -> Site:
        """Return the site of staging in this account, with its own ledger and folder."""
        known = replace(staging(), **chosen)
        folder = self.folder / known.name
        folder.mkdir(mode=0o700, exist_ok=True)
        aws = Aws(known.region)
        if known.region == REGION:  # boto3's clients take a while to create
            vars(aws).update(session=self.aws.session, clients=self.aws.clients)
        return Site(known, aws, Ledger(folder / "ledger.json"), folder)

    def empty(self) -> Cloud:
        """Remove everything from AWS, and what is written about it here."""
        reset_moto()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        return self

    def make_cluster(self, site: Site, *addons: str, **changed: Any) -> None:
        """Create a cluster of the environment's name, with add-ons, as somebody else would."""
        name, version = site.environment.cluster, site.environment.kubernetes
        eksctl.make_cluster(self.client, name, **{"version": version, "tags": {}, **changed})
        for addon in addons:
            self.client("eks").create_addon(clusterName=name, addonName=addon)

    def clients_as(self, role: str) -> Callable[[str], Any]:
        """Assume a role and return a factory of its clients.

        moto enforces policies from now on, until the end of the test.
        """
        arn = self.client("iam").get_role(RoleName=role)["Role"]["Arn"]
        said = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="pod")["Credentials"]
        enforce_policies()
        self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", said["AccessKeyId"])
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", said["SecretAccessKey"])
        self.monkeypatch.setenv("AWS_SESSION_TOKEN", said["SessionToken"])
        return Aws(REGION).client

    @contextmanager
    def acting_as_user(self, statements: list[dict[str, Any]]) -> Iterator[Aws]:
        """Yield AWS as a user with this policy; moto enforces policies while the block runs."""
        iam, name = self.client("iam"), f"user-{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=name)
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="theirs", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        found = Aws(REGION)
        vars(found)["session"] = boto3.Session(
            key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION
        )
        enforce_policies()
        try:
            yield found
        finally:
            enforce_policies(after=float("inf"))

    def client_of_stranger(self, service: str = "s3") -> Any:
        """Return a client of another account."""
        arn = "arn:aws:iam::999999999999:role/somebody"
        said = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="somebody")[
            "Credentials"
        ]
        session: Any = boto3.Session(
            said["AccessKeyId"], said["SecretAccessKey"], said["SessionToken"], REGION
        )
        return session.client(service)

    def install_eksctl(self, version: str = "0.230.0") -> Path:
        """Put an eksctl on PATH; return its folder, in which a file `stop` names where it fails."""
        folder = self.folder / "bin"
        folder.mkdir()
        program = folder / "eksctl"
        script = Path(eksctl.__file__)
        program.write_text(f'#!/bin/sh\nVERSION={version} exec {sys.executable} {script} "$@"\n')
        program.chmod(0o755)
        self.monkeypatch.setenv("PATH", str(folder), prepend=":")
        return folder


def staging() -> Environment:
    """Return the environment `staging`, in moto's account."""
    found = environment.load("staging", KIT)
    return replace(found, account=ACCOUNT, region=REGION, bucket="lab-staging", options=())


@contextmanager
def running_moto() -> Iterator[str]:
    """Run moto's server while the block runs; yield its address."""
    extend_moto()
    found = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    with mock.patch.dict(os.environ, {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}):  # 0.2 s a reset
        found.start()
        host, port = found.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            found.stop()


def reset_moto() -> None:
    """Delete everything in moto, and let everybody do everything."""
    moto_api_backend.reset()
    enforce_policies(after=float("inf"))
    for known in (ASSOCIATIONS, ADDONS, QUOTAS):
        known.clear()
    AGENT_STATES.clear()


def enforce_policies(after: float = 0) -> None:
    """Have moto enforce policies after this many calls."""
    settings.INITIAL_NO_AUTH_ACTION_COUNT = after
    ActionAuthenticatorMixin.request_count = 0


# A session reads the descriptions of AWS's services anew: most of the time to create a client.
shared_loader = functools.cache(botocore.loaders.create_loader)


def sign_in(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Direct all calls to AWS to `url`, with example keys; hide the user's own configuration."""
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


READ_ONLY = ("Describe", "Get", "Head", "List")  # operations that change nothing


class Killed(BaseException):
    """The end of a process, as by `kill -9`: no `except Exception` catches it."""


@contextmanager
def watching_calls(at: str, called: Callable[[str], None]) -> Iterator[None]:
    """Call `called` with the name of each operation that changes something in AWS.

    `at` is botocore's event: `before-call`, when the call is not sent yet, or `after-call`, when
    the answer has come and is not used yet.
    """
    armed: dict[int, Any] = {}
    original = Aws.client

    def look(model: Any, **_: object) -> None:
        if not model.name.startswith(READ_ONLY):
            called(model.name)

    def client(aws: Aws, service: str) -> Any:
        found = original(aws, service)
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
def killing_at_call(number: int, at: str) -> Iterator[None]:
    """Raise Killed in the block, at its n-th call that changes something in AWS."""
    seen = itertools.count(1)

    def count(_: str) -> None:
        if next(seen) == number:
            raise Killed

    with watching_calls(at, count):
        yield


def kill_at_each_call(
    cloud: Cloud, do: Callable[[Site], object], between: Callable[[], object] = lambda: None
) -> Iterator[tuple[int, str]]:
    """Kill `do` at one call after another; yield each call's number and event.

    The calls are the first of each operation that changes something, and with `cloud.every` all of
    them. Each time begins with an empty cloud and with `between`, which creates what `do` needs.
    When the loop's body runs, `do` is dead.
    """

    def start_over() -> Site:
        cloud.empty()
        between()
        return cloud.site()

    calls: list[str] = []
    site = start_over()
    with watching_calls("before-call", calls.append):
        do(site)
    firsts = {name: number for number, name in reversed(list(enumerate(calls, 1)))}
    numbers = range(1, len(calls) + 1) if cloud.every else sorted(firsts.values())
    for at, number in itertools.product(("before-call", "after-call"), numbers):
        site = start_over()
        with pytest.raises(Killed), killing_at_call(number, at):
            do(site)
        yield number, at


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which uses the same AWS."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
