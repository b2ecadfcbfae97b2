"""Which service account has which role: one file, refused when it can't be right."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eks import environment, identity
from lab.cluster import associations
from lab.cluster.associations import ACCOUNTS, FILE, POLICIES, list_accounts, read_roles
from lab.config import KIT
from lab.errors import AssociationError

POLICY = "  - {role: steps, policy: steps}\n"
ASSOCIATION = "  - {namespace: airflow, serviceAccount: airflow-step, role: steps}\n"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """Return a kit that has the accounts and the policies, and no associations yet."""
    for path in (ACCOUNTS, POLICIES / "steps.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(KIT / path, tmp_path / path)
    return tmp_path


def write(kit: Path, policies: str = POLICY, rows: str = ASSOCIATION) -> None:
    (kit / FILE).write_text(f"policies:\n{policies}associations:\n{rows}", "utf-8")


def test_the_roles_of_the_kit() -> None:
    steps, airflow = read_roles(KIT)
    assert (steps.name, steps.policies, steps.accounts) == ("steps", ("steps",), ("airflow-step",))
    assert (airflow.name, airflow.policies) == ("airflow", ("airflow",))
    assert "airflow-api-server" not in list_accounts([steps, airflow])


def test_an_option_adds_policies_and_roles() -> None:
    _, airflow, pages = read_roles(KIT, ["spot", "remote-logs"])
    assert airflow.policies == ("airflow", "logs")
    assert (pages.name, pages.policies, pages.accounts) == (
        "pages",
        ("pages",),
        ("airflow-api-server",),
    )


def test_eks_has_the_same_roles_under_its_own_names() -> None:
    staging = environment.load("staging")
    there, here = identity.roles(staging), read_roles(KIT, staging.options)
    assert [role.name for role in there] == [f"{staging.cluster}-{role.name}" for role in here]
    assert [(r.policies, r.accounts) for r in there] == [(r.policies, r.accounts) for r in here]


@pytest.mark.parametrize(
    ("policies", "rows", "said"),
    [
        (POLICY, "  - {namespace: airflow, serviceAccount: airflow-step}\n", "4: .*names no role"),
        ("", ASSOCIATION, "can't be read"),
        ("  - {role: other, policy: steps}\n", ASSOCIATION, "4: the role steps has no policy"),
        ("  - {role: steps, policy: absent}\n", ASSOCIATION, "2: there is no .*absent.json"),
        ("  - {role: steps, policy: ''}\n", ASSOCIATION, "2: .*names no policy"),
        (
            "  - {role: steps, policy: steps, option: spot}\n",
            ASSOCIATION,
            "4: the role steps has no policy",
        ),
        (POLICY, ASSOCIATION * 2, "5: airflow-step has a role already, by line 4"),
        (POLICY, ASSOCIATION.replace("step,", "stop,"), "4: .*account airflow/airflow-stop"),
        (
            POLICY,
            ASSOCIATION.replace(": airflow,", ": stores,"),
            "4: .*account stores/airflow-step",
        ),
        (POLICY, ASSOCIATION.replace("role:", "rule: x, role:"), "4: rule is no word"),
        ("  - {role: my-steps, policy: steps}\n", ASSOCIATION, "2: my-steps is no name of a role"),
        (POLICY, "  - airflow-step\n", "'airflow-step' of associations is no mapping"),
        (POLICY, "  - {", "can't be read"),
    ],
)
def test_what_can_t_be_right_is_refused_with_its_line(
    kit: Path, policies: str, rows: str, said: str
) -> None:
    write(kit, policies, rows)
    with pytest.raises(AssociationError, match=said) as refused:
        read_roles(kit)
    assert str(FILE) in refused.value.what
    assert refused.value.fix


def test_an_entry_is_checked_though_its_option_is_off(kit: Path) -> None:
    row = "  - {namespace: airflow, serviceAccount: nobody, role: steps, option: spot}\n"
    write(kit, rows=ASSOCIATION + row)
    with pytest.raises(AssociationError, match="line 5: there is no service account"):
        associations.read_roles(kit)
