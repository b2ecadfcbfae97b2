"""What `lab up` makes of the associations on kind, and what `lab doctor` says of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from lab.backends.kind import identity, injection
from lab.backends.kind.injection import VOLUME, look_for_injection, quote, trial_pod
from lab.cluster.associations import read_roles
from lab.config import KIT
from lab.errors import LabError, StaticKey
from lab.wait import NotYet

OBJECTS = list(yaml.safe_load_all(injection.render_identity(KIT)))


def test_the_stand_in_and_the_policy_have_the_same_accounts() -> None:
    config_map, policy, binding = OBJECTS
    known = json.loads(config_map["data"]["associations.json"])
    assert known == {
        f"airflow/{account}": role.name for role in read_roles(KIT) for account in role.accounts
    }
    (condition,) = policy["spec"]["matchConditions"]
    assert all(json.dumps(account) in condition["expression"] for account in known)
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert policy["spec"]["failurePolicy"] == "Fail", "a pod without its identity would only fail"


def test_each_list_of_containers_is_changed() -> None:
    expressions = [one["jsonPatch"]["expression"] for one in OBJECTS[1]["spec"]["mutations"]]
    for field_ in ("containers", "initContainers"):
        assert any(f'"/spec/{field_}/" + string(i) + "/env"' in one for one in expressions)
        assert any(f'"/spec/{field_}/" + string(i) + "/volumeMounts"' in one for one in expressions)


def test_a_value_is_written_as_an_expression() -> None:
    assert quote({"a": [1, True, 'x"']}) == '{"a": dyn([1, true, "x\\""])}'


@dataclass
class FakeCluster:
    """A cluster whose kubectl answers with what it is told, for each account in turn."""

    answers: dict[str, Any] = field(default_factory=dict)

    def kubectl(self, *_: str, stdin: str) -> str:
        account = json.loads(stdin)["spec"]["serviceAccountName"]
        if isinstance(answer := self.answers[account], LabError):
            raise answer
        return json.dumps(answer)


def stored(*volumes: str) -> dict[str, Any]:
    return {"spec": {"volumes": [{"name": name} for name in volumes]}}


def test_it_waits_until_every_account_s_pod_would_have_the_token() -> None:
    cluster: Any = FakeCluster({"one": stored(VOLUME), "other": stored("mine")})
    with pytest.raises(NotYet, match="a pod of other would have no token"):
        look_for_injection(cluster, ["one", "other"])
    cluster.answers["other"] = stored("mine", VOLUME)
    look_for_injection(cluster, ["one", "other"])


def test_it_waits_while_no_pod_can_be_made() -> None:
    cluster: Any = FakeCluster({"one": LabError("serviceaccount one not found", "wait")})
    with pytest.raises(NotYet, match="not found"):
        look_for_injection(cluster, ["one"])


def test_a_trial_pod_is_of_an_account_and_restricted() -> None:
    pod = trial_pod("airflow-step")
    assert pod["spec"]["serviceAccountName"] == "airflow-step"
    assert pod["spec"]["securityContext"]["runAsNonRoot"]


# --- lab doctor ---------------------------------------------------------------------------------


def decision(at: str, what: str, account: str = "airflow-step", **more: str) -> dict[str, str]:
    return {"time": f"2026-12-01T{at}.5+00:00", "serviceAccount": account, "decision": what, **more}


REFUSED = {"error": "InvalidTokenException", "why": "the pod is gone"}
LATER = "was refused at 2026-12-01T11:00:00: InvalidTokenException: the pod is gone"


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        ([], "has got no credentials yet"),
        ([decision("10:00:00", "granted", "other")], "has got no credentials yet"),
        ([decision("10:00:00", "granted")], "got credentials at 2026-12-01T10:00:00"),
        (
            [decision("09:00:00", "refused", **REFUSED), decision("10:00:00", "granted")],
            "got credentials at 2026-12-01T10:00:00",
        ),
        (
            [decision("10:00:00", "granted"), decision("11:00:00", "refused", **REFUSED)],
            f"got credentials at 2026-12-01T10:00:00, {LATER}",
        ),
        (
            [decision("11:00:00", "refused", **REFUSED)],
            f"has got no credentials yet, {LATER}",
        ),
    ],
)
def test_what_was_decided_last_is_said(decisions: list[dict[str, str]], said: str) -> None:
    assert identity.describe_last(decisions, "airflow-step") == said


def test_other_lines_of_a_log_are_passed_over() -> None:
    lines = ["Serving on 8080", "[]", '{"no": "decision"}', json.dumps(decision("1", "granted"))]
    assert len(list(identity.parse_decisions("\n".join(lines)))) == 1


def test_what_a_role_may_is_told_by_its_prefixes() -> None:
    bucket = "arn:aws:s3:::b"
    allow = {"Effect": "Allow", "Resource": [f"{bucket}/store/*", f"{bucket}/a/*"]}
    statements = [
        {**allow, "Action": ["s3:GetObject", "s3:PutObject"]},
        {**allow, "Action": ["s3:GetObject", "s3:AbortMultipartUpload"]},
        {"Effect": "Deny", "Action": ["s3:DeleteObject"], "Resource": [f"{bucket}/*"]},
    ]
    wanted = ["a/*", "store/*"]
    assert identity.list_objects_by_verb(statements) == {"reads": wanted, "writes": wanted}


def test_a_key_within_reach_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, list[str]] = {"airflow": ["a-pod: variable AWS_SECRET_ACCESS_KEY"]}
    look = "lab.cluster.static_keys.search_namespace"
    monkeypatch.setattr(look, lambda _cluster, namespace: found.get(namespace, []))
    cluster: Any = FakeCluster()
    error = identity.find_keys(cluster).error
    assert isinstance(error, StaticKey)
    assert "a-pod: variable AWS_SECRET_ACCESS_KEY" in error.what
    found.clear()
    assert identity.find_keys(cluster).error is None
