"""Steps and plugins without a key of their own, as on EKS: an agent gives them credentials.

The agent here speaks the protocol of EKS Pod Identity's agent, on this machine's own address; S3 is
the lab's own server, which checks every signature.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError

from lab import layout
from lab.backends.kind.s3_policies import read_role_policy
from lab.cluster.associations import read_roles
from lab.config import KIT
from tests.support.s3_terms import may_list, on_s3_terms
from tests.support.serving import Silent, serving
from tests.support.steps import STEPS
from tests.support.stores import PREFIX, employees, md5_of, write_text

if TYPE_CHECKING:
    from tests.support.stores import Done, Project, Run, Stores

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PATH = "/v1/credentials"
TOKEN = "the-token-of-the-pods-service-account"


@dataclass
class Agent:
    """A node's agent: what it knows, and what it was asked."""

    key: str
    secret: str
    hours: float = 6
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, path: str, token: str | None) -> tuple[HTTPStatus, dict[str, str]]:
        """Return the credentials, or an error unless the request bears the pod's token."""
        self.asked.append((path, token))
        if (path, token) != (PATH, TOKEN):
            return HTTPStatus.BAD_REQUEST, {"message": "Service account token cannot be validated"}
        until = datetime.now(UTC) + timedelta(hours=self.hours)
        return HTTPStatus.OK, {
            "AccessKeyId": self.key,
            "SecretAccessKey": self.secret,
            "Token": "",  # SeaweedFS knows no sessions
            "AccountId": "111122223333",
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def variables(self, folder: Path, token: str = TOKEN) -> dict[str, str]:
        """Return what EKS adds to the environment of a pod that has an identity."""
        file = folder / "eks-pod-identity-token"
        write_text(file, token)
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}{PATH}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
        }


@contextmanager
def listening(agent: Agent) -> Iterator[Agent]:
    """Serve the agent on a port of this machine."""

    class Handler(Silent, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, said = agent.answer(self.path, self.headers["Authorization"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

    with serving(Handler) as agent.url:
        yield agent


@pytest.fixture
def agent(stores: Stores) -> Iterator[Agent]:
    """Start an agent that gives the credentials that steps otherwise have in their variables."""
    known = stores.site.step_environment
    with listening(Agent(known[KEYS[0]], known[KEYS[1]])) as found:
        yield found


def run_by_identity(run: Run, step: str, variables: dict[str, str]) -> Done:
    """Run a step without a key in its variables."""
    return run.run_step(step, **{**dict.fromkeys(KEYS), **variables})


def test_a_run_needs_no_key_but_that_of_its_pods_identity(
    project: Project, agent: Agent, tmp_path: Path
) -> None:
    variables = agent.variables(tmp_path)
    run = project.run()
    for step in STEPS:
        before = len(agent.asked)
        done = run_by_identity(run, step, variables)
        assert done.code == 0, done.output
        assert agent.secret not in done.output
        # `modify` does not use S3.
        assert (len(agent.asked) > before) == (step != "modify")
    _, after = project.prove_commits()
    assert after.trailers["Run-Id"] == run.id
    assert set(agent.asked) == {(PATH, TOKEN)}


def test_a_first_version_is_imported_by_identity(
    empty: Project, agent: Agent, tmp_path: Path
) -> None:
    content = employees(20, "by identity")
    source = tmp_path / "employees.csv"
    source.write_bytes(content)
    variables = {**dict.fromkeys(KEYS), **agent.variables(tmp_path)}
    done = empty.run().run_step("import", source, **variables)
    assert done.code == 0, done.output
    (commit,) = empty.prove_commits()
    assert commit.md5 == md5_of(content)


def test_credentials_that_end_soon_are_fetched_anew(
    project: Project, agent: Agent, tmp_path: Path
) -> None:
    agent.hours = 0.1  # less than the quarter of an hour at which an SDK looks for new ones
    done = run_by_identity(project.run(), "pull", agent.variables(tmp_path))
    assert done.code == 0, done.output
    assert len(agent.asked) > 1


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "Unable to locate credentials"), ("another-pods", "token cannot be validated")],
)
def test_without_an_identity_of_its_own_a_step_gets_nothing(
    project: Project, agent: Agent, tmp_path: Path, token: str | None, said: str
) -> None:
    """Neither S3 itself nor anything else on the machine lets it in; a retry may find the agent."""
    known = agent.variables(tmp_path, token) if token else {}
    done = run_by_identity(project.run(), "pull", known)
    assert done.code == 75, done
    assert said in done.output
    assert agent.secret not in done.output


# --- What runs in Airflow's own processes ---------------------------------------------------------


@pytest.fixture
def bucket(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the plugin as in a pod of Airflow's: its contract is the environment, without keys."""
    monkeypatch.syspath_prepend(str(KIT / "manifests" / "base" / "plugins"))
    monkeypatch.delenv("STEP_ENVIRONMENT_FILE", raising=False)
    for name, value in stores.site.step_environment.items():
        if name.startswith(("AWS_", "S3_")):
            monkeypatch.setenv(name, value)
    for name in (*KEYS, "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    return importlib.import_module("lab_bucket")


def test_the_bucket_of_a_plugin_opens_by_identity(
    bucket: Any, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in agent.variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    bucket.write("results/identity/one.txt", b"written")
    assert bucket.read("results/identity/one.txt") == b"written"
    assert [o.key for o in bucket.listing("results/identity/")] == ["results/identity/one.txt"]
    assert set(agent.asked) == {(PATH, TOKEN)}


def test_a_plugin_with_another_pods_token_is_refused(
    bucket: Any, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in agent.variables(tmp_path, "another-pods").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CredentialRetrievalError):
        bucket.listing(PREFIX)


def test_a_wrong_key_from_the_agent_opens_nothing(
    bucket: Any, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.secret = "not-the-secret"
    for name, value in agent.variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|AccessDenied"):
        bucket.listing(PREFIX)
    assert bucket.bucket() == layout.BUCKET


# --- What S3 says of an object that is not there --------------------------------------------------

POLICIES = {role.name: read_role_policy(KIT, role, layout.BUCKET) for role in read_roles(KIT)}
TERMS = pytest.mark.parametrize("tightened", [False, True], ids=["as-it-is", "tightened"])


def test_a_policy_that_lets_nobody_list_is_told_from_one_that_does() -> None:
    assert all(map(may_list, POLICIES.values()))
    stricter = [one for one in POLICIES["steps"]["Statement"] if "Null" not in str(one)]
    assert not may_list({"Statement": stricter})


@TERMS
def test_steps_and_dvc_find_that_an_object_is_missing(project: Project, tightened: bool) -> None:
    """By the steps' policy they may list; without that, nothing could be pushed on AWS."""
    lists = may_list(POLICIES["steps"]) and not tightened
    run = project.run()
    with on_s3_terms(project.lab.s3_endpoint, lists=lists) as url:
        done = [run.run_step(step, AWS_ENDPOINT_URL_S3=url) for step in STEPS]
    if tightened:
        assert done[-1].code
        assert "the S3 server refused the step's key" in done[-1].output
        assert not project.list_run_ids()
        return
    assert [each.code for each in done] == [0] * len(STEPS), done
    assert project.list_run_ids() == [project.prove_commits()[-1].trailers["Run-Id"]]


@TERMS
def test_plugins_find_that_an_object_is_missing(
    bucket: Any, stores: Stores, monkeypatch: pytest.MonkeyPatch, tightened: bool
) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, stores.site.step_environment[name])
    lists = may_list(POLICIES["airflow"]) and not tightened
    with on_s3_terms(stores.lab.s3_endpoint, lists=lists) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        bucket.write("results/identity/there", b"it is")
        assert bucket.read("results/identity/there") == b"it is"
        if tightened:
            with pytest.raises(ClientError, match="AccessDenied"):
                bucket.read("results/identity/absent")
        else:
            assert bucket.read("results/identity/absent") is None
