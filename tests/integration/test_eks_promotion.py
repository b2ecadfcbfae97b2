"""Where EKS may differ from what kind has proved: eks/promotion.yaml and the renderings."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable

import pytest

from eks import difference, rendering
from eks.difference import Difference
from tests.support.needs import need_renderers
from tests.support.pods import set_value
from tests.support.promotion import ALL, EKS
from tests.support.renderings import Object, eks_objects, objects, temporary_home

pytestmark = pytest.mark.kind

SETS = ((), *((name,) for name in ALL), ALL)  # of options


@pytest.fixture(autouse=True)
def _able() -> None:
    need_renderers()


@functools.cache
def render_kind() -> tuple[Object, ...]:
    """Render what runs on kind, once for all tests. Don't change it."""
    with temporary_home() as config:
        return tuple(rendering.render_kind(config, config.run / "kind").objects())


@functools.cache
def find_differences(*options: str) -> tuple[Difference, ...]:
    return tuple(difference.find_differences(render_kind(), eks_objects(*options)))


def list_refused(found: Iterable[Difference], *options: str) -> list[Difference]:
    judged = difference.judge_differences(found, difference.read_allowed(), options)
    return [row for row, reason in judged if reason is None]


@pytest.mark.parametrize("options", SETS, ids="-".join)
def test_every_difference_has_a_reason(options: tuple[str, ...]) -> None:
    found = find_differences(*options)
    assert len(found) > 100
    assert not list_refused(found, *options)


@pytest.mark.parametrize("options", [some for some in SETS if some], ids="-".join)
def test_what_an_option_changes_is_refused_where_it_is_off(options: tuple[str, ...]) -> None:
    assert list_refused(set(find_differences(*options)) - set(find_differences()))


def test_every_reason_is_one_for_something() -> None:
    """An entry that no option needs would allow differences that nobody has thought of."""
    allowed = difference.read_allowed()
    found = {row for options in SETS for row in find_differences(*options)}
    needed = {next(entry for entry in allowed if entry.covers(row)) for row in found}
    # Staging happens to have the same dataset as kind.
    assert [entry.field for entry in allowed if entry not in needed] == ["data.DATASET_PATH"]


def test_no_reason_covers_a_whole_object_that_both_have() -> None:
    both = {difference.object_name(o) for o in objects("overlay", "chart")}
    both &= {difference.object_name(o) for o in objects(*EKS)}
    for entry in difference.read_allowed():
        for name in both:
            any_field = Difference(name, "spec.template.spec.hostNetwork", None, "true")
            assert not entry.covers(any_field), entry


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("PodTemplate", "step", "template.spec.containers.0.image", "docker.io/other/image:1"),
        ("PodTemplate", "step", "template.spec.securityContext.runAsUser", 0),
        ("PodTemplate", "step", "template.spec.serviceAccountName", "airflow-worker"),
        ("PodTemplate", "training", "template.spec.nodeSelector", {"mlops-lab/role": "airflow"}),
        ("Role", "pod-launcher", "rules.0.verbs", ["*"]),
        ("NetworkPolicy", "default-deny", "policyTypes", ["Ingress"]),
        ("ServiceAccount", "airflow-step", "automountServiceAccountToken", True),
        ("Namespace", "airflow", "metadata.labels", {}),
        ("ConfigMap", "airflow-plugins", "data", {"lab_bucket.py": "import os"}),
        ("ConfigMap", "step-environment", "data.SHARED_DIR", "/elsewhere"),
        ("StatefulSet", "airflow-scheduler", "spec.template.spec.hostNetwork", True),
        ("StatefulSet", "airflow-scheduler", "spec.replicas", 7),
        ("Deployment", "airflow-api-server", "spec.template.spec.containers.0.image", "other:1"),
    ],
)
def test_a_difference_without_a_reason_is_refused(
    kind: str, name: str, path: str, value: object
) -> None:
    theirs = copy.deepcopy(list(objects(*EKS)))
    (wrong,) = (
        o
        for o in theirs
        if (o["kind"], o["metadata"]["name"]) == (kind, name)
        and o["metadata"].get("namespace", "airflow") == "airflow"
    )
    set_value(wrong, path, value)
    assert list_refused(difference.find_differences(render_kind(), theirs))


def test_an_object_more_is_refused() -> None:
    more = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "everything"},
    }
    (row,) = list_refused(difference.find_differences(render_kind(), [*objects(*EKS), more]))
    assert row.object == "ClusterRoleBinding/everything"
