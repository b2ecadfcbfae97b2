"""The differences of two renderings, and which of them promotion.yaml allows."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from eks import difference
from eks.difference import Allowed, Difference, find_differences, judge_differences, read_allowed
from lab.errors import EnvironmentFileError, PromotionError

Object = dict[str, Any]


def deployment(**container: object) -> Object:
    """Return a Deployment with one container and, like the chart's, no namespace."""
    base = {"name": "base", "image": "airflow:1", "args": ["bash", "-c", "run"], **container}
    template = {"metadata": {"annotations": {"checksum/config": "abc"}}}
    spec = {"template": {**template, "spec": {"containers": [base]}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}


def config_map(cfg: str, pod: str = "{kind: Pod}", **data: str) -> Object:
    """Return the chart's ConfigMap."""
    texts = {"airflow.cfg": cfg, "pod_template_file.yaml": pod, **data}
    return {"kind": "ConfigMap", "metadata": {"name": "airflow-config"}, "data": texts}


def policy(*egress: object) -> Object:
    spec = {"policyTypes": ["Ingress", "Egress"], "egress": list(egress)}
    return {"kind": "NetworkPolicy", "metadata": {"name": "n", "namespace": "stores"}, "spec": spec}


def diff_fields(one: Object, other: Object) -> list[tuple[str, str | None, str | None]]:
    """Return the fields in which two versions of one object differ, with both values."""
    return [(row.field, row.kind, row.eks) for row in find_differences([one], [other])]


CONTAINER = "spec.template.spec.containers[base]"


# --- No difference ------------------------------------------------------------------------------


def test_what_means_the_same_does_not_differ() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    ports = [{"containerPort": 8080}, {"containerPort": 8081}]
    one = deployment(env=env, ports=ports, resources=None)
    other = deployment(env=env[::-1], ports=ports[::-1])
    assert diff_fields(one, other) == []


def test_a_namespace_that_helm_would_give_is_no_difference() -> None:
    one, other = deployment(), deployment()
    other["metadata"]["namespace"] = "airflow"
    assert find_differences([one], [other]) == []


def test_objects_of_one_name_in_two_namespaces_are_two() -> None:
    one, other = deployment(), deployment()
    other["metadata"]["namespace"] = "stores"
    found = find_differences([one], [other])
    assert [(row.object, row.field) for row in found] == [
        ("Deployment/airflow/a", "*"),
        ("Deployment/stores/a", "*"),
    ]


def test_what_is_in_no_namespace_has_a_name_of_two_parts() -> None:
    one = {"kind": "StorageClass", "metadata": {"name": "efs"}}
    assert find_differences([], [one]) == [Difference("StorageClass/efs", "*", None, "there")]


# --- Differences --------------------------------------------------------------------------------


def test_an_object_on_one_side_is_one_row() -> None:
    assert find_differences([deployment()], []) == [
        Difference("Deployment/airflow/a", "*", "there", None)
    ]


def test_a_field_is_named_by_its_path_with_the_names_of_things() -> None:
    found = diff_fields(deployment(), deployment(image="airflow:2"))
    assert found == [(f"{CONTAINER}.image", "airflow:1", "airflow:2")]


def test_a_named_thing_on_one_side_is_one_row() -> None:
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    other = deployment(env=[{"name": "A", "valueFrom": source}])
    said = '{"valueFrom": {"secretKeyRef": {"key": "k", "name": "s"}}}'
    assert diff_fields(deployment(env=[]), other) == [(f"{CONTAINER}.env[A]", None, said)]


def test_mounts_are_named_by_their_paths() -> None:
    logs = [{"name": "logs", "mountPath": path} for path in ("/a", "/b")]
    found = diff_fields(deployment(volumeMounts=logs), deployment(volumeMounts=logs[:1]))
    assert found == [(f"{CONTAINER}.volumeMounts[/b]", '{"name": "logs"}', None)]


def test_a_reference_is_named_by_what_it_refers_to() -> None:
    one = deployment(envFrom=[{"configMapRef": {"name": "e"}}])
    secret = {"secretRef": {"name": "s", "optional": True}}
    other = deployment(envFrom=[{"configMapRef": {"name": "e"}}, secret])
    assert [field for field, _, _ in diff_fields(one, other)] == [f"{CONTAINER}.envFrom[s]"]


def test_the_order_of_arguments_counts() -> None:
    found = diff_fields(deployment(), deployment(args=["bash", "run", "-c"]))
    assert found == [(f"{CONTAINER}.args[1]", "-c", "run"), (f"{CONTAINER}.args[2]", "run", "-c")]


def test_the_order_in_which_containers_start_counts() -> None:
    one, other = deployment(), deployment()
    inits = [{"name": "first"}, {"name": "second"}]
    one["spec"]["template"]["spec"]["initContainers"] = inits
    other["spec"]["template"]["spec"]["initContainers"] = inits[::-1]
    found = diff_fields(one, other)
    assert found == [("spec.template.spec.initContainers", "first, second", "second, first")]


def test_items_without_names_are_compared_as_a_whole() -> None:
    same, here, there = ({"ports": [{"port": port}]} for port in (53, 9000, 443))
    found = diff_fields(policy(same, here), policy(there, same))
    assert found == [("spec.egress[]", '{"ports": [{"port": 9000}]}', '{"ports": [{"port": 443}]}')]
    more = diff_fields(policy(same), policy(there, here))
    assert [(one is None, other is None) for _, one, other in more] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_two_items_that_are_alike_are_two() -> None:
    rule = {"ports": [{"port": 53}]}
    assert diff_fields(policy(rule), policy(rule, rule)) == [
        ("spec.egress[]", None, '{"ports": [{"port": 53}]}')
    ]


def test_a_list_that_is_there_and_empty_is_not_one_that_is_not_there() -> None:
    other = policy()
    del other["spec"]["egress"]
    assert diff_fields(policy(), other) == [("spec.egress", "[]", None)]


@pytest.mark.parametrize(("one", "other"), [("1", 1), ("true", True), ("", None), (1, True)])
def test_what_only_looks_the_same_differs(one: object, other: object) -> None:
    assert len(diff_fields(deployment(x=one), deployment(x=other))) == 1


def test_a_volume_that_is_empty_on_one_side_only() -> None:
    other = deployment(volumes=[{"name": "v", "emptyDir": {}}])
    found = diff_fields(deployment(volumes=[{"name": "v"}]), other)
    assert found == [(f"{CONTAINER}.volumes[v].emptyDir", None, "{}")]


# --- The chart's ConfigMap ----------------------------------------------------------------------


def test_airflow_s_settings_differ_one_by_one() -> None:
    one = config_map("[core]\nparallelism = 4\nx = %(y)s\n[api]\nworkers = 1\n")
    other = config_map("[api]\nworkers=1\n[core]\nx = %(y)s\nparallelism: 8\n[new]\na = b\n")
    assert diff_fields(one, other) == [
        ("airflow.cfg.core.parallelism", '"4"', '"8"'),
        ("airflow.cfg.new.a", None, "b"),
    ]


def test_the_pod_s_template_differs_field_by_field() -> None:
    one = config_map("", "spec: {containers: [{name: base, image: a}]}")
    other = config_map("", "spec:\n  containers:\n  - image: b\n    name: base\n")
    assert diff_fields(one, other) == [
        ("pod_template_file.yaml.spec.containers[base].image", "a", "b")
    ]


def test_another_text_of_it_differs_as_a_whole() -> None:
    one, other = config_map("", x="a\nb"), config_map("", x="a\nc")
    assert diff_fields(one, other) == [("data.x", "a\nb", "a\nc")]


def test_a_chart_that_keeps_its_settings_elsewhere_is_an_error() -> None:
    one = config_map("")
    other = copy.deepcopy(one)
    del other["data"]["airflow.cfg"]
    with pytest.raises(PromotionError, match="airflow-config"):
        find_differences([one], [other])


def test_an_object_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(PromotionError, match="Deployment/airflow/a is rendered twice"):
        find_differences([deployment(), deployment()], [])


# --- Any change is found ------------------------------------------------------------------------


def list_value_paths(part: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of keys to each scalar in `part`."""
    if isinstance(part, dict | list):
        keys = part if isinstance(part, dict) else range(len(part))
        return [place for key in keys for place in list_value_paths(part[key], (*path, key))]
    return [path]


def test_a_change_of_any_value_is_seen() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"path": "x"}}}]
    ports = [{"name": "http", "containerPort": 8080}]
    whole = [
        deployment(env=env, ports=ports, command=["a", "b"], securityContext={"runAsUser": 1}),
        policy({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 53}]}),
        {"kind": "Namespace", "metadata": {"name": "airflow", "labels": {"a/b": "c"}}},
    ]
    names = random.Random(5)
    found = list_value_paths(whole)
    assert len(found) > 25
    for place in found:
        other = copy.deepcopy(whole)
        part: Any = other
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = f"changed-{names.randrange(1000)}"
        assert find_differences(whole, other), place
        assert find_differences(other, whole), place


# --- What is allowed ----------------------------------------------------------------------------

ROW = Difference("Deployment/airflow/a", "spec.containers[base].image", "a:1", "ecr/a:1")
ONE_SIDED = Difference("Deployment/airflow/a", "*", None, "there")


@pytest.mark.parametrize(
    "entry",
    [
        Allowed("Deployment/airflow/a", "spec.containers[base].image", "r"),
        Allowed("*/airflow/*", "*containers[*].image", "r"),
        Allowed("Deployment/airflow/?", "?*", "r"),
        Allowed("*", "?*", "r", kind="a:*", eks="ecr/*"),
    ],
)
def test_an_entry_allows_what_it_describes(entry: Allowed) -> None:
    assert entry.covers(ROW)


@pytest.mark.parametrize(
    "entry",
    [
        Allowed("Deployment/airflow/b", "?*", "r"),
        Allowed("*", "spec.containers[abse].image", "r"),  # brackets are no character set
        Allowed("*", "image", "r"),  # the pattern has to match from the start
        Allowed("*", "*", "r"),  # only a whole object
        Allowed("*", "?*", "r", eks="ecr"),
        Allowed("*", "?*", "r", kind=""),
    ],
)
def test_an_entry_allows_nothing_else(entry: Allowed) -> None:
    assert not entry.covers(ROW)


def test_an_object_on_one_side_is_allowed_by_its_own_sign_only() -> None:
    assert Allowed("*/a", "*", "r").covers(ONE_SIDED)
    assert Allowed("*/a", "*", "r", kind="").covers(ONE_SIDED)
    assert not Allowed("*/a", "?*", "r").covers(ONE_SIDED)
    assert not Allowed("*/a", "*", "r", eks="").covers(ONE_SIDED)


def test_the_first_reason_counts_and_what_has_none_is_named() -> None:
    entries = [Allowed("*", "*image", "first"), Allowed("*", "?*", "second", kind="a:1")]
    other = Difference("x", "y", None, "z")
    assert judge_differences([ROW, other], entries) == [(ROW, "first"), (other, None)]


def test_what_an_option_changes_is_allowed_where_it_is_on() -> None:
    entries = [Allowed("*", "?*", "no store is left", option="rds")]
    assert judge_differences([ROW], entries) == [(ROW, None)]
    assert judge_differences([ROW], entries, ["spot"]) == [(ROW, None)]
    assert judge_differences([ROW], entries, ["rds"]) == [(ROW, "rds: no store is left")]


# --- promotion.yaml -----------------------------------------------------------------------------


def write_promotion(folder: Path, text: str) -> Path:
    path = folder / "promotion.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_list_is_read(tmp_path: Path) -> None:
    path = write_promotion(tmp_path, "- {object: a, field: 'b[c]', reason: d}\n")
    assert read_allowed(path) == [Allowed("a", "b[c]", "d")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no list"),
        ("object: a", "no list"),
        ("- a", "entry 1 is no mapping"),
        ("- {object: a, field: b}", "entry 1 has no reason"),
        ("- {object: a, field: b, reason: ''}", "entry 1 has no reason"),
        ("- {object: a, field: b, reason: ' '}", "entry 1 has no reason"),
        ("- {field: b, reason: c}", "entry 1 has no object"),
        ("- {object: a, field: b, reason: c}\n- {object: a, reason: c}", "entry 2 has no field"),
        ("- {object: a, field: b, reason: c, feild: d}", "unknown feild"),
        ("- {object: a, field: b, reason: c, eks: 3}", "no text"),
        ("- [", "can't be read"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(EnvironmentFileError, match=why):
        read_allowed(write_promotion(tmp_path, text))


def test_without_the_list_nothing_is_promoted(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFileError, match="can't be read"):
        read_allowed(tmp_path / difference.PROMOTION)
