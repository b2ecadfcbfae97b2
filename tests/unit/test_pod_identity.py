"""Pod Identity on kind: the agent, and the stand-in for EKS Auth, as AWS's SDKs see them."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import ContainerProvider
from botocore.exceptions import ClientError, CredentialRetrievalError
from botocore.utils import ContainerMetadataFetcher
from waitress.server import create_server

from pod_identity import agent as agents
from pod_identity.agent import Agent
from pod_identity.cache import MOST, Cache, Credentials, Unreachable
from pod_identity.eks_auth import EksAuth
from pod_identity.kubernetes import Kubernetes, Subject, read_subject
from pod_identity.limit import Limit
from pod_identity.roles import Roles
from pod_identity.tokens import read_claims
from pod_identity.wsgi import Refused

NOW = 1_000_000.0
HOUR = 3600.0
SECRET = "the-secret-of-a-session"


def make_token(**claims: object) -> str:
    """Return a token with these claims, whose signature nobody has made."""
    whose = {"namespace": "airflow", "serviceaccount": {"name": "airflow-step"}}
    content = {"exp": NOW + HOUR, "kubernetes.io": whose, **claims}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, content)]
    return ".".join([*(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts), "c2ln"])


@dataclass
class Clock:
    """A clock that a test turns."""

    at: float = NOW

    def __call__(self) -> float:
        return self.at


@dataclass
class Source:
    """What an agent asks: it gives credentials of some seconds, or raises what it is told."""

    clock: Clock
    life: float = 6 * HOUR
    asked: list[str] = field(default_factory=list)
    failure: Exception | None = None

    def __call__(self, token: str) -> Credentials:
        self.asked.append(token)
        if self.failure:
            raise self.failure
        number = f"key-{len(self.asked)}"
        return Credentials(number, SECRET, "a-session", "000000000000", self.clock.at + self.life)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(clock: Clock) -> Source:
    return Source(clock)


@pytest.fixture
def agent(source: Source, clock: Clock) -> Agent:
    return Agent(source, now=clock)


def ask(
    application: Any, path: str = agents.PATH, method: str = "GET", body: bytes = b"", **more: str
) -> tuple[int, str]:
    """Send a request to an application; return the status and the body."""
    said: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "REMOTE_ADDR": "10.0.0.1",
        "HTTP_HOST": "169.254.170.23",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **more,
    }
    content = b"".join(application(environ, lambda status, _headers: said.append(status)))
    return int(said[0][:3]), content.decode()


def ask_for(agent: Agent, token: str, address: str = "10.0.0.1") -> tuple[int, str]:
    return ask(agent, HTTP_AUTHORIZATION=token, REMOTE_ADDR=address)


# --- The agent ----------------------------------------------------------------------------------


def test_a_token_gets_credentials_in_the_shape_of_an_sdk_s(agent: Agent) -> None:
    status, body = ask_for(agent, make_token())
    assert status == HTTPStatus.OK
    assert json.loads(body) == {
        "AccessKeyId": "key-1",
        "SecretAccessKey": SECRET,
        "Token": "a-session",
        "AccountId": "000000000000",
        "Expiration": datetime.fromtimestamp(NOW + 6 * HOUR, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "cannot be empty"),
        ("no-token", "cannot be parsed: it has 1 parts"),
        ("a.b.c", "cannot be parsed"),
        ("a.W10.c", "cannot be parsed: its claims are no object"),
        ("a.é.c", "cannot be parsed"),
        (make_token(exp=NOW), "token is expired"),
        (make_token(exp=None), "token is expired"),
        (make_token(nbf=NOW + 1), "token is not valid yet"),
    ],
)
def test_a_token_that_can_t_be_right_is_refused_without_asking(
    agent: Agent, source: Source, token: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, body = ask_for(agent, token)
    assert status == HTTPStatus.BAD_REQUEST
    assert said in body
    assert not source.asked
    logged = json.loads(capsys.readouterr().out)
    assert logged["decision"] == "refused"
    assert said in logged["why"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", agents.PATH), ("PUT", "/x")])
def test_nothing_else_is_served(agent: Agent, method: str, path: str) -> None:
    assert ask(agent, path, method)[0] == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("host", ["", "of-a-web-page.example", "169.254.170.2"])
def test_who_calls_it_by_another_name_is_refused(agent: Agent, source: Source, host: str) -> None:
    status, said = ask(agent, HTTP_AUTHORIZATION=make_token(), HTTP_HOST=host)
    assert (status, source.asked) == (HTTPStatus.FORBIDDEN, [])
    assert "invalid address" in said
    again = ask(agent, HTTP_AUTHORIZATION=make_token(), HTTP_HOST="169.254.170.23:80")
    assert again[0] == HTTPStatus.OK


def test_it_says_that_it_is_there(agent: Agent) -> None:
    assert ask(agent, agents.HEALTH) == (HTTPStatus.OK, "ok\n")


def test_requests_of_one_address_are_limited(source: Source, clock: Clock) -> None:
    limit = Limit(rate=2, burst=3, now=clock)
    agent = Agent(source, limit=limit, now=clock)
    assert [ask_for(agent, make_token())[0] for _ in range(4)] == [200, 200, 200, 429]
    assert ask_for(agent, make_token(), "10.0.0.2")[0] == HTTPStatus.OK
    clock.at += 1
    assert [ask_for(agent, make_token())[0] for _ in range(3)] == [200, 200, 429]


def test_addresses_are_not_remembered_for_ever(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pod_identity.limit.MOST_ADDRESSES", 2)
    limit = Limit(now=clock)
    assert all(limit.admits(str(number)) for number in range(5))
    assert list(limit.left) == ["3", "4"]


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (Refused(HTTPStatus.NOT_FOUND, "ResourceNotFoundException", "no association"), 404, "no a"),
        (Refused(HTTPStatus.BAD_REQUEST, "InvalidTokenException", "gone"), 400, "(InvalidToken"),
        (Unreachable("unable to fetch credentials"), 500, "unable to fetch"),
    ],
)
def test_what_eks_auth_says_is_passed_on(
    agent: Agent, source: Source, failure: Exception, status: int, said: str
) -> None:
    source.failure = failure
    found = ask_for(agent, make_token())
    assert found[0] == status
    assert said in found[1]


# --- Credentials that are kept ------------------------------------------------------------------


def test_credentials_are_fetched_once_for_a_token_of_an_address(
    agent: Agent, source: Source
) -> None:
    token = make_token()
    assert [ask_for(agent, token)[0] for _ in range(5)] == [200] * 5
    assert len(source.asked) == 1
    ask_for(agent, token, "10.0.0.2")  # it may have been stolen: EKS Auth looks again
    ask_for(agent, make_token(jti="another"))
    assert len(source.asked) == 3


@pytest.mark.parametrize(("life", "good"), [(900, 300), (6 * HOUR, 5 * HOUR)])
def test_they_are_renewed_before_they_end(
    source: Source, clock: Clock, life: float, good: float
) -> None:
    source.life = life
    cache = Cache(source, clock)
    first = cache.find("token", "here")
    clock.at = NOW + good - 1
    assert cache.find("token", "here") is first
    clock.at = NOW + good + 1
    assert cache.find("token", "here").access_key == "key-2"


def test_while_eks_auth_does_not_answer_the_old_ones_are_given(
    source: Source, clock: Clock
) -> None:
    source.life = 900
    cache = Cache(source, clock)
    first = cache.find("token", "here")
    source.failure = Unreachable("no answer")
    clock.at = NOW + 800
    assert cache.find("token", "here") is first
    clock.at = NOW + 890
    with pytest.raises(Unreachable):
        cache.find("token", "here")
    source.failure = None
    assert cache.find("token", "here").ends == NOW + 890 + 900


def test_a_token_that_is_refused_later_gets_the_old_ones_no_more(
    source: Source, clock: Clock
) -> None:
    source.life = 900
    cache = Cache(source, clock)
    cache.find("token", "here")
    source.failure = Refused(HTTPStatus.BAD_REQUEST, "InvalidTokenException", "the pod is gone")
    clock.at = NOW + 400
    for _ in range(2):
        with pytest.raises(Refused):
            cache.find("token", "here")
    assert not cache.held


def test_those_that_have_ended_and_the_oldest_of_many_are_forgotten(
    source: Source, clock: Clock
) -> None:
    cache = Cache(source, clock)
    for number in range(MOST + 10):
        cache.find(str(number), "here")
    assert len(cache.held) == MOST
    clock.at += 6 * HOUR
    cache.find("new", "here")
    assert len(cache.held) == 1


@pytest.mark.parametrize("failure", [None, Unreachable("no answer")])
def test_requests_at_once_ask_once(clock: Clock, failure: Exception | None) -> None:
    together = Barrier(8)

    def fetch(_token: str) -> Credentials:
        calls.append(1)
        time.sleep(0.2)
        if failure:
            raise failure
        return Credentials("key", SECRET, "", "0", NOW + HOUR)

    def find() -> object:
        together.wait()
        try:
            return cache.find("token", "here")
        except Unreachable as error:
            return error

    calls: list[int] = []
    cache = Cache(fetch, clock)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: find(), range(8)))
    assert len(calls) == 1
    assert len(set(map(id, found))) == 1


# --- The stand-in for EKS Auth ------------------------------------------------------------------


def make_living_token(**claims: object) -> str:
    """Return a token that has not ended, by the machine's clock."""
    return make_token(**{"exp": time.time() + HOUR, **claims})


class Cluster(Kubernetes):
    """The API server, as far as it looks at tokens: one pod is there."""

    gone = False
    refusal: Refused | None = None

    def __init__(self) -> None:
        """Ask nothing; one pod is known."""

    def review(self, token: str) -> Subject:
        if self.refusal:
            raise self.refusal
        said = read_claims(token)["kubernetes.io"]
        return Subject(said["namespace"], said["serviceaccount"]["name"], "a-step", "uid")

    def refuse_gone(self, _subject: Subject) -> None:
        if self.gone:
            raise Refused(HTTPStatus.BAD_REQUEST, "InvalidTokenException", "the pod is gone")


class Sessions(Roles):
    """The roles, whose sessions S3's server would open."""

    def open_session(self, role: str, name: str) -> dict[str, Any]:
        return {
            "AccessKeyId": f"session-of-{role}",
            "SecretAccessKey": SECRET,
            "SessionToken": name,
            "Expiration": datetime.fromtimestamp(int(time.time()) + 900, UTC),
        }


@pytest.fixture
def stand_in(tmp_path: Path) -> EksAuth:
    """Return the stand-in, which knows one association."""
    known = tmp_path / "associations.json"
    known.write_text('{"airflow/airflow-step": "steps"}')
    roles = Sessions(known, tmp_path, "http://127.0.0.1:9", "us-east-1", 900)
    return EksAuth("kind", "us-east-1", Cluster(), roles)


@contextmanager
def listening(application: Any) -> Iterator[str]:
    """Serve the application as its image does; yield its URL."""
    server: Any = create_server(application, host="127.0.0.1", port=0, threads=8)
    Thread(target=server.run, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.close()


def create_client(url: str) -> Any:
    options = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1})
    session = botocore.session.Session()
    return session.create_client(
        "eks-auth", region_name="us-east-1", endpoint_url=url, config=options
    )


def assume(url: str, token: str, cluster: str = "kind") -> Any:
    return create_client(url).assume_role_for_pod_identity(clusterName=cluster, token=token)


def test_its_answer_is_that_of_botocore_s_model(stand_in: EksAuth) -> None:
    with listening(stand_in) as url:
        said = assume(url, make_living_token())
    assert said["subject"] == {"namespace": "airflow", "serviceAccount": "airflow-step"}
    assert said["audience"] == "pods.eks.amazonaws.com"
    arn = said["assumedRoleUser"]["arn"]
    assert arn.startswith("arn:aws:sts::000000000000:assumed-role/steps/eks-kind-a-step-")
    assert said["assumedRoleUser"]["assumeRoleId"].startswith("AROA")
    association = said["podIdentityAssociation"]
    assert association["associationArn"].endswith(f"/kind/{association['associationId']}")
    assert said["credentials"]["accessKeyId"] == "session-of-steps"
    assert said["credentials"]["expiration"].tzinfo
    shape = create_client(url).meta.service_model.operation_model("AssumeRoleForPodIdentity")
    assert set(shape.output_shape.required_members) <= set(said)


def make_gone(stand_in: EksAuth) -> None:
    stand_in.kubernetes.gone = True  # type: ignore[attr-defined]


def make_wrong(name: str, status: HTTPStatus) -> Callable[[EksAuth], None]:
    def change(stand_in: EksAuth) -> None:
        stand_in.kubernetes.refusal = Refused(status, name, "why")  # type: ignore[attr-defined]

    return change


def test_an_unknown_cluster_is_no_resource(stand_in: EksAuth) -> None:
    with listening(stand_in) as url, pytest.raises(ClientError, match="ResourceNotFoundException"):
        assume(url, make_living_token(), "another")


def test_an_account_without_an_association_is_no_resource(stand_in: EksAuth) -> None:
    whose = {"namespace": "airflow", "serviceaccount": {"name": "airflow-api-server"}}
    with listening(stand_in) as url, pytest.raises(ClientError) as caught:
        assume(url, make_living_token(**{"kubernetes.io": whose}))
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert "airflow-api-server in namespace airflow" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (make_gone, "InvalidTokenException"),
        (make_wrong("ExpiredTokenException", HTTPStatus.BAD_REQUEST), "ExpiredTokenException"),
        (
            make_wrong("ServiceUnavailableException", HTTPStatus.SERVICE_UNAVAILABLE),
            "ServiceUnavailableException",
        ),
    ],
)
def test_each_error_is_one_of_botocore_s(
    stand_in: EksAuth, change: Callable[[EksAuth], None], name: str
) -> None:
    change(stand_in)
    with listening(stand_in) as url:
        client = create_client(url)
        with pytest.raises(getattr(client.exceptions, name)):
            client.assume_role_for_pod_identity(clusterName="kind", token=make_living_token())


def test_an_expired_token_is_refused_before_kubernetes_is_asked(stand_in: EksAuth) -> None:
    """To Kubernetes it counts a minute longer, on account of clocks that differ."""
    with pytest.raises(Refused, match="token is expired") as caught:
        stand_in.assume_role("kind", make_token(exp=time.time() - 1))
    assert caught.value.name == "ExpiredTokenException"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "InvalidRequestException"),
        (b"{}", "InvalidRequestException"),
        (b'{"token": "no"}', "InvalidTokenException"),
        (b"x" * 20_000, "InvalidRequestException"),
    ],
)
def test_a_request_without_a_token_is_refused(stand_in: EksAuth, body: bytes, said: str) -> None:
    heads: list[tuple[str, str]] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/clusters/kind/assume-role-for-pod-identity",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    stand_in(environ, lambda _status, headers: heads.extend(headers))
    assert ("x-amzn-errortype", said) in heads


def test_where_kubernetes_does_not_answer_the_service_is_unavailable(
    stand_in: EksAuth, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("own")
    (tmp_path / "ca.crt").write_text("")
    nowhere = Kubernetes("http://127.0.0.1:9", tmp_path)
    auth = EksAuth("kind", "us-east-1", nowhere, stand_in.roles)
    with pytest.raises(Refused, match="does not answer") as caught:
        auth.assume_role("kind", make_living_token())
    assert caught.value.name == "ServiceUnavailableException"


def test_where_s3_does_not_answer_the_service_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "steps").write_text("a-long-lived-key")
    roles = Roles(tmp_path, tmp_path, "http://127.0.0.1:9", "us-east-1", 900)
    with pytest.raises(Refused, match="no session of steps") as caught:
        roles.open_session("steps", "name")
    assert "a-long-lived-key" not in str(caught.value)


@pytest.mark.parametrize(
    "user",
    [
        {"username": "system:serviceaccount:airflow:airflow-step"},
        {"username": "system:serviceaccount:airflow:airflow-step", "extra": {}},
        {"username": "kubernetes-admin", "extra": {}},
    ],
)
def test_a_token_of_no_pod_is_refused(user: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="for no pod"):
        read_subject(user)


# --- Both ---------------------------------------------------------------------------------------


@contextmanager
def both_listening(stand_in: EksAuth) -> Iterator[str]:
    """Serve the stand-in, and an agent that asks it; yield the agent's URL."""
    with listening(stand_in) as auth:
        agent = Agent(agents.connect("kind", "us-east-1", auth), "127.0.0.1")
        with listening(agent) as url:
            yield url


def test_an_sdk_gets_credentials_of_the_role(
    stand_in: EksAuth, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, file = make_living_token(), tmp_path / "token"
    file.write_text(token)
    with both_listening(stand_in) as url:
        variables = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}{agents.PATH}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
        }
        found = ContainerProvider(variables).load()
        assert found.access_key == "session-of-steps"
        assert found.account_id == "000000000000"
    logged = capsys.readouterr().out
    assert json.loads(logged)["role"] == "steps"
    assert token not in logged
    assert SECRET not in logged


def test_an_sdk_is_told_why_it_gets_none(stand_in: EksAuth, tmp_path: Path) -> None:
    make_gone(stand_in)
    file = tmp_path / "token"
    file.write_text(make_living_token())
    with both_listening(stand_in) as url:
        variables = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}{agents.PATH}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
        }
        fetcher = ContainerMetadataFetcher(sleep=lambda _seconds: None)
        with pytest.raises(CredentialRetrievalError, match="the pod is gone"):
            ContainerProvider(variables, fetcher).load()  # type: ignore[arg-type]


def test_an_agent_without_eks_auth_says_so(tmp_path: Path) -> None:
    fetch = agents.connect("kind", "us-east-1", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="unable to fetch credentials from EKS Auth"):
        fetch(make_living_token())
