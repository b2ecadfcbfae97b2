"""What the lab applies to a cluster: valid, restricted, bounded, open to those who need it."""

from __future__ import annotations

import configparser
import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
from packaging.version import Version

from lab.backends.kind import stores
from lab.backends.kind.doctor import MEMORY
from lab.client import git
from lab.cluster import workloads
from tests.support.pods import (
    AIRFLOW,
    COMPONENTS,
    NAME_SERVER,
    OUTSIDE,
    RULES,
    Peer,
    Rule,
    can_write_temporary_files,
    compute_resource,
    find_offenders,
    find_secret_keys,
    gains_no_privileges,
    has_a_pinned_image,
    has_a_read_only_root,
    has_requests_and_limits,
    has_the_default_seccomp_profile,
    is_not_root,
    is_probed_while_it_lives,
    is_task,
    keeps_off_the_host,
    parse_quantity,
    permits,
    selects,
    set_value,
    short_name,
    sum_resource,
)
from tests.support.renderings import (
    NAMES,
    Object,
    Pod,
    airflow_cfg,
    find_object,
    locked_images,
    namespace_of,
    objects,
    objects_of_kind,
    pods,
    render,
    rendering,
    temporary_site,
    worker_pod,
)

pytestmark = pytest.mark.kind
MODEL_TEMPLATES = ("model", "training")

MOST_CPU = 1.0  # core, of a lab on a machine that has two


# --- Objects --------------------------------------------------------------------------------------


def schema_version() -> str:
    """Return the node's version of Kubernetes, or the newest that the schemas know."""
    node = Version(locked_images()["node"].tag)
    return str(min(node, Version(kubernetes_validate.latest_version())))


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_one_that_kubernetes_knows(name: str) -> None:
    found = objects(name)
    assert found
    for entry in found:
        kubernetes_validate.validate(entry, schema_version(), strict=True)


def test_the_pod_of_the_kubernetes_executor_is_one_that_kubernetes_knows() -> None:
    kubernetes_validate.validate(worker_pod(), schema_version(), strict=True)


def test_an_unknown_field_is_refused() -> None:
    wrong = copy.deepcopy(worker_pod())
    wrong["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, schema_version(), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_rendering_is_the_same_each_time(name: str) -> None:
    assert render(name) == rendering(name)


# --- Containers -----------------------------------------------------------------------------------


# The agent is on the node's network, and what gives the node its address is root, with one right.
AGENT = "overlay: DaemonSet pod-identity-agent, container"
EXCEPTED = {
    "is_not_root": {f"{AGENT} address"},
    "gains_no_privileges": {f"{AGENT} address"},
    "keeps_off_the_host": {f"{AGENT} address", f"{AGENT} agent"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_container(name: str, rule: Rule) -> None:
    excepted = EXCEPTED.get(rule.__name__, set()) if name == "overlay" else set()
    assert set(find_offenders(rule, pods(name))) == excepted


def test_every_container_is_looked_at() -> None:
    """Also a pod that is described in a text."""
    found = {
        (pod.name.partition(": ")[2], container["name"])
        for pod in pods("overlay", "git-sync")
        for container in pod.containers
    }
    assert {
        ("PodTemplate step", "base"),
        ("StatefulSet minio", "minio"),
        ("ConfigMap airflow-config", "base"),
        ("ConfigMap airflow-config", "git-sync-init"),
        ("Deployment airflow-api-server", "wait-for-migration"),
        ("StatefulSet airflow-scheduler", "git-sync"),
        ("Job airflow-run-airflow-migrations", "run-airflow-migrations"),
    } <= found
    text = rendering("overlay") + rendering("git-sync")
    assert len(found) == len(re.findall(r"^ +(?:- )?image: ", text, re.MULTILINE))


CHANGES: tuple[tuple[Rule, str, object], ...] = (
    (has_requests_and_limits, "containers.0.resources.limits.cpu", None),
    (has_requests_and_limits, "containers.0.resources.requests", None),
    (has_a_pinned_image, "containers.0.image", "localhost:5000/minio"),
    (has_a_pinned_image, "containers.0.image", "minio:latest"),
    (is_not_root, "securityContext.runAsNonRoot", None),
    (is_not_root, "containers.0.securityContext.runAsUser", 0),
    (has_the_default_seccomp_profile, "securityContext.seccompProfile.type", "Unconfined"),
    (has_the_default_seccomp_profile, "containers.0.securityContext.seccompProfile", {"type": "x"}),
    (gains_no_privileges, "containers.0.securityContext.allowPrivilegeEscalation", None),
    (gains_no_privileges, "containers.0.securityContext.privileged", True),
    (gains_no_privileges, "containers.0.securityContext.capabilities.drop", ["NET_RAW"]),
    (gains_no_privileges, "containers.0.securityContext.capabilities.add", ["SYS_ADMIN"]),
    (keeps_off_the_host, "hostNetwork", True),
    (keeps_off_the_host, "hostPID", True),
    (keeps_off_the_host, "volumes.0.hostPath", {"path": "/"}),
    (keeps_off_the_host, "containers.0.ports.0.hostPort", 9000),
    (keeps_off_the_host, "securityContext.sysctls", [{"name": "net.ipv4.ip_forward"}]),
    (has_a_read_only_root, "containers.0.securityContext.readOnlyRootFilesystem", False),
    (can_write_temporary_files, "containers.0.volumeMounts", []),
    (is_probed_while_it_lives, "containers.0.livenessProbe", None),
)


@pytest.mark.parametrize(
    ("rule", "path", "value"), CHANGES, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_a_container_that_breaks_a_rule_is_found(rule: Rule, path: str, value: object) -> None:
    (minio,) = (pod for pod in pods("overlay") if pod.name.endswith(" minio"))
    broken = replace(minio, spec=copy.deepcopy(minio.spec))
    assert not find_offenders(rule, [broken])
    set_value(broken.spec, path, value)
    assert find_offenders(rule, [broken]) == ["overlay: StatefulSet minio, container minio"]


# --- Resources ------------------------------------------------------------------------------------


def read_parallelism() -> int:
    """Return how many tasks run at a time."""
    parser = configparser.RawConfigParser()
    parser.read_string(airflow_cfg())
    return int(parser["core"]["parallelism"])


def list_task_pods() -> list[Pod]:
    """List the pods of one task: a step's, or one of Airflow's own workers."""
    return [pod for pod in pods("overlay", "chart") if is_task(pod)]


def sum_four_tasks(side: str, what: str) -> float:
    """Sum what the tasks take that run at a time: a training, and three in the largest other pod.

    `ml_training_pipeline` has one run at a time.
    """
    trainings = [pod for pod in list_task_pods() if pod.name.endswith("training")]
    others = [pod for pod in list_task_pods() if pod not in trainings]
    assert (len(trainings), len(others)) == (1, 3)
    alone = compute_resource(trainings[0], side, what)
    return alone + (read_parallelism() - 1) * max(
        compute_resource(pod, side, what) for pod in others
    )


def test_four_tasks_run_at_a_time() -> None:
    assert read_parallelism() == 4


def test_a_lab_at_work_stays_within_the_memory_that_the_doctor_asks_for() -> None:
    """Even with each container at its limit, four steps among them."""
    served = [pod for pod in pods("overlay", "chart") if not pod.ends_by_itself]
    (step,) = (pod for pod in list_task_pods() if pod.name.endswith("PodTemplate step"))
    needs = {pod.name: compute_resource(pod, "limits", "memory") / 2**20 for pod in served}
    needs["steps"] = read_parallelism() * compute_resource(step, "limits", "memory") / 2**20
    assert len(served) == 9
    assert sum(needs.values()) <= MEMORY / 2**20 == 6 * 1024, needs


@pytest.mark.parametrize("airflow", ["chart", "git-sync"])
def test_a_lab_at_work_asks_for_one_core_at_most(airflow: str) -> None:
    stays = [pod for pod in pods("overlay", airflow) if not is_task(pod)]
    asked = sum_resource(stays, "requests", "cpu") + sum_four_tasks("requests", "cpu")
    assert 0.1 < asked <= MOST_CPU


def count_claims(namespace: str) -> int:
    """Count the volumes that a namespace's objects claim."""
    made = [o for o in objects("overlay", "chart") if namespace_of(o) == namespace]
    templates = [o["spec"].get("volumeClaimTemplates") or [] for o in made if "spec" in o]
    own_claims = [o for o in made if o["kind"] == "PersistentVolumeClaim"]
    return len(own_claims) + sum(map(len, templates))


@pytest.mark.parametrize("airflow", ["chart", "git-sync"])
@pytest.mark.parametrize("namespace", ["airflow", "stores"])
def test_a_quota_leaves_room_for_a_lab_at_work(namespace: str, airflow: str) -> None:
    quota = find_object("ResourceQuota", namespace, "overlay")["spec"]["hard"]
    inside = [pod for pod in pods("overlay", airflow) if pod.namespace == namespace]
    stays = [pod for pod in inside if not is_task(pod)]
    tasks_here = int(any(map(is_task, inside)))
    for side in ("limits", "requests"):
        wanted = sum_resource(stays, side, "memory") + tasks_here * sum_four_tasks(side, "memory")
        assert 0 < wanted <= parse_quantity(quota[f"{side}.memory"]), (side, wanted / 2**20)
    assert len(stays) + tasks_here * read_parallelism() <= int(quota["pods"])
    assert 0 < count_claims(namespace) <= int(quota["persistentvolumeclaims"])


# --- Connections ----------------------------------------------------------------------------------


def find_peer(name: str) -> Peer:
    """Return a pod of the lab by its short name, with the labels of the object that creates it."""
    if name == "outside":
        return OUTSIDE
    if name == "names":
        return NAME_SERVER
    found = {
        (pod.namespace, tuple(sorted(pod.labels.items())))
        for pod in pods("overlay", "chart")
        if short_name(pod) == name
    }
    ((namespace, labels),) = found
    return Peer(namespace, dict(labels))


def can_reach(policies: list[Object], one: str, other: str, number: int, over: str = "TCP") -> bool:
    """Return whether the policies let the pod `one` open a connection to `other`."""
    source, target = find_peer(one), find_peer(other)
    return permits(policies, "egress", source, target, over, number) and permits(
        policies, "ingress", target, source, over, number
    )


def copy_policies() -> list[Object]:
    """Return a copy of the policies of a lab, for the caller to change."""
    return copy.deepcopy(objects_of_kind("NetworkPolicy", "overlay", "chart"))


CLONING = ("scheduler", "worker", "dag-processor")  # what runs DAGs' code needs it from git
NEEDED = (
    ("step", "minio", 9000),
    ("step", "gitea", 3000),
    *((name, "postgresql", 5432) for name in AIRFLOW),
    *((name, "gitea", 3000) for name in COMPONENTS),
    *((name, "api-server", 8080) for name in COMPONENTS),
    ("scheduler", "minio", 9000),  # its own tasks, and callbacks
    ("worker", "minio", 9000),
    ("triggerer", "minio", 9000),
    ("dag-processor", "minio", 9000),
    *((name, "gitea", 2222) for name in CLONING),
    ("gitea", "api-server", 8080),  # pushes
    ("scheduler", "outside", 6443),  # the Kubernetes API
    ("worker", "outside", 6443),
    ("api-server", "outside", 6443),
    ("outside", "eks-auth", 8080),  # the agent, on the node's network
    ("eks-auth", "minio", 9000),
    ("eks-auth", "outside", 6443),
)
REFUSED = (
    ("step", "postgresql", 5432),
    ("step", "api-server", 8080),
    ("step", "scheduler", 8793),
    ("api-server", "scheduler", 8793),  # nobody serves logs: they are on a volume
    ("api-server", "triggerer", 8794),
    ("step", "outside", 443),
    ("step", "outside", 6443),
    ("step", "step", 8080),
    ("step", "minio", 22),
    ("api-server", "minio", 9000),
    ("dag-processor", "outside", 443),
    ("triggerer", "outside", 443),
    ("outside", "api-server", 8080),
    ("outside", "gitea", 3000),
    ("outside", "gitea", 2222),
    ("step", "gitea", 2222),
    *((name, "gitea", 2222) for name in COMPONENTS if name not in CLONING),
    ("gitea", "minio", 9000),
    ("gitea", "outside", 443),
    ("gitea", "scheduler", 8793),
    ("minio", "api-server", 8080),
    ("postgresql", "api-server", 8080),
    ("minio", "outside", 443),
    ("minio", "postgresql", 5432),
    ("postgresql", "scheduler", 8793),
    ("step", "eks-auth", 8080),  # only by way of the agent
    ("eks-auth", "gitea", 3000),
    ("eks-auth", "postgresql", 5432),
    ("eks-auth", "api-server", 8080),
)


@pytest.mark.parametrize(("one", "other", "number"), NEEDED)
def test_who_needs_a_service_reaches_it(one: str, other: str, number: int) -> None:
    assert can_reach(copy_policies(), one, other, number)


@pytest.mark.parametrize(("one", "other", "number"), REFUSED)
def test_who_does_not_need_a_service_does_not_reach_it(one: str, other: str, number: int) -> None:
    assert not can_reach(copy_policies(), one, other, number)


@pytest.mark.parametrize("name", ["step", "gitea", *AIRFLOW])
def test_who_calls_another_by_its_name_can_look_it_up(name: str) -> None:
    assert can_reach(copy_policies(), name, "names", 53, "UDP")


@pytest.mark.parametrize("namespace", ["airflow", "stores"])
def test_a_namespace_denies_whatever_nothing_allows(namespace: str) -> None:
    spec = next(
        policy["spec"]
        for policy in copy_policies()
        if namespace_of(policy) == namespace and policy["metadata"]["name"] == "default-deny"
    )
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_namespace_denies_and_is_restricted() -> None:
    found = {
        o["metadata"]["name"]: o["metadata"]["labels"]
        for o in objects_of_kind("Namespace", "overlay")
    }
    denying = {namespace_of(policy) for policy in copy_policies()}
    assert denying == {"airflow", "stores"}
    levels = {name: one["pod-security.kubernetes.io/enforce"] for name, one in found.items()}
    on_the_nodes_network = {"pod-identity": "privileged"}  # where no policy counts
    assert levels == {**dict.fromkeys(denying, "restricted"), **on_the_nodes_network}


@pytest.mark.parametrize(
    ("policy", "path", "value", "way"),
    [
        ("step-stores", "podSelector.matchLabels", {"component": "step"}, ("step", "minio", 9000)),
        ("minio", "podSelector.matchLabels", {"app": "minio"}, ("step", "minio", 9000)),
        ("minio", "ingress.0.ports.0.port", 9001, ("step", "minio", 9000)),
        ("minio", "ingress.0.from.0.namespaceSelector", None, ("step", "minio", 9000)),
        ("gitea", "ingress.0.ports.0.protocol", "UDP", ("step", "gitea", 3000)),
        ("airflow", "podSelector.matchLabels", {"tier": "x"}, ("scheduler", "api-server", 8080)),
        ("postgresql", "policyTypes", [], ("scheduler", "postgresql", 5432)),
    ],
)
def test_a_wrong_policy_is_found(
    policy: str, path: str, value: object, way: tuple[str, str, int]
) -> None:
    found = copy_policies()
    assert can_reach(found, *way)
    (wrong,) = (one for one in found if one["metadata"]["name"] == policy)
    set_value(wrong["spec"], path, value)
    assert not can_reach(found, *way)


def list_services() -> list[Object]:
    return objects_of_kind("Service", "overlay", "chart")


def test_every_service_has_a_pod_that_listens() -> None:
    """A port without a `targetPort` means the container's port of the same number."""
    served = {o["metadata"]["name"] for o in list_services()}
    assert {"minio", "gitea", "postgresql", "airflow-api-server"} <= served
    lost = [
        (o["metadata"]["name"], port["port"])
        for o in list_services()
        for port in o["spec"]["ports"]
        if not any(
            is_listening(pod, o, port) for pod in pods("overlay", "chart") if not pod.ends_by_itself
        )
    ]
    assert not lost


def is_listening(pod: Pod, service: Object, port: Object) -> bool:
    """Return whether the pod is one of the service's and listens on the port."""
    opened = {p["containerPort"] for c in pod.staying_containers for p in c.get("ports") or []}
    return (
        pod.namespace == namespace_of(service)
        and selects({"matchLabels": service["spec"]["selector"]}, pod.labels)
        and port.get("targetPort", port["port"]) in opened
    )


# --- Rights ---------------------------------------------------------------------------------------


def list_roles() -> list[Object]:
    return objects_of_kind("Role")


def list_words(role: Object) -> Iterator[str]:
    """Yield the API groups, resources and verbs that a role names."""
    for rule in role["rules"]:
        for part in ("apiGroups", "resources", "verbs"):
            yield from rule.get(part) or []


def test_nothing_holds_for_the_whole_cluster_but_that_tokens_are_looked_at() -> None:
    found = [o for o in objects(*NAMES) if o["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    assert {o["metadata"]["name"] for o in found} == {"eks-auth-token-reviewer"}
    (role,) = (o for o in found if o["kind"] == "ClusterRole")
    (rule,) = role["rules"]
    assert (rule["resources"], rule["verbs"]) == (["tokenreviews"], ["create"])


def test_no_role_has_a_wildcard_or_leads_to_more() -> None:
    forbidden = {"*", "secrets", "pods/exec", "pods/attach", "pods/portforward", "roles"}
    forbidden |= {"rolebindings", "serviceaccounts", "serviceaccounts/token", "nodes/proxy"}
    forbidden |= {"bind", "escalate", "impersonate"}
    assert len(list_roles()) >= 2
    assert not {
        (role["metadata"]["name"], word) for role in list_roles() for word in list_words(role)
    } & {(role["metadata"]["name"], word) for role in list_roles() for word in forbidden}


def test_a_role_is_bound_to_named_accounts_only() -> None:
    bound = {
        (subject["kind"], subject["name"], subject.get("namespace"))
        for binding in objects_of_kind("RoleBinding")
        for subject in binding["subjects"]
    }
    accounts = ("airflow-scheduler", "airflow-worker", "airflow-api-server")
    assert bound == {
        ("ServiceAccount", "eks-auth", "stores"),
        *(("ServiceAccount", name, "airflow") for name in accounts),
    }


def test_a_binding_names_a_role_that_is_there() -> None:
    there = {role["metadata"]["name"] for role in list_roles()}
    assert {binding["roleRef"]["name"] for binding in objects_of_kind("RoleBinding")} == there


def test_a_step_has_an_account_without_a_role_or_a_token() -> None:
    templates = [pod for pod in pods("overlay") if "PodTemplate" in pod.name]
    assert len(templates) == 3
    for step in templates:
        account = find_object("ServiceAccount", step.spec["serviceAccountName"], "overlay")
        assert account["metadata"]["name"] == "airflow-step"
        assert account["automountServiceAccountToken"] is False
        assert step.spec["automountServiceAccountToken"] is False


def test_every_account_that_a_pod_has_is_one_of_the_manifests() -> None:
    """The chart creates none: with a wrong name a pod would have no rights, or never run."""
    made = objects_of_kind("ServiceAccount", "overlay")
    there = {(namespace_of(o), o["metadata"]["name"]) for o in made}
    used = {(p.namespace, p.spec["serviceAccountName"]) for p in pods() if has_account(p)}
    assert used == there
    assert not objects_of_kind("ServiceAccount", "chart", "git-sync")


def has_account(pod: Pod) -> bool:
    return "serviceAccountName" in pod.spec


def test_a_pod_without_an_account_has_no_token() -> None:
    anonymous = [pod for pod in pods() if not has_account(pod)]
    assert anonymous
    assert not [pod for pod in anonymous if pod.spec.get("automountServiceAccountToken", True)]


# --- Secrets --------------------------------------------------------------------------------------


def test_only_who_hears_of_pushes_knows_their_secret() -> None:
    knowing = {
        short_name(pod)
        for pod in pods("overlay", "chart")
        if ("push-secret", "secret") in find_secret_keys(pod.spec)
    }
    assert knowing == {"api-server"}


def test_only_what_clones_the_other_teams_repository_has_its_key() -> None:
    having = {
        short_name(pod)
        for pod in pods("overlay", "chart")
        for volume in pod.spec.get("volumes", ())
        if volume.get("secret", {}).get("secretName") == "team-a-ssh"
    }
    assert having == set(CLONING)
    with temporary_site() as site:
        secret = stores.team_a_ssh(site.config)
    extra = json.loads(secret["connection"])["extra"]
    named = [extra["key_file"], extra["ssh_config_file"], f"{stores.SSH_FOLDER}/known-hosts"]
    assert named == [f"{stores.SSH_FOLDER}/{name}" for name in ("key", "config", "known-hosts")]
    assert named[2] in secret["config"]
    assert "PRIVATE" not in secret["connection"]


def test_gitea_may_call_whom_the_lab_tells_it_to_and_nobody_else() -> None:
    called = urlsplit(stores.RECEIVER)
    allowed = find_object("ConfigMap", "gitea", "overlay")["data"][
        "GITEA__webhook__ALLOWED_HOST_LIST"
    ]
    assert allowed == called.hostname
    name, namespace, *_ = allowed.split(".")
    (port,) = find_object("Service", name, "chart")["spec"]["ports"]
    assert (namespace, port["port"]) == ("airflow", called.port)


def test_every_secret_that_a_pod_asks_for_is_one_that_the_lab_writes() -> None:
    with temporary_site() as site:
        written = {
            (namespace, name): set(values)
            for (namespace, name), values in stores.lab_secrets(site).items()
        }
    tokens = set(git.git_sync_keys("user", "password"))
    written["airflow", "git-credentials"] = tokens
    written["airflow", "pipelines-credentials"] = {*tokens, "connection"}
    asked = {
        (namespace_of(entry), name, key)
        for entry in objects("overlay", "git-sync")
        for name, key in find_secret_keys(entry)
    }
    assert ("airflow", "team-a-ssh", "connection") in asked
    assert len(asked) > 10
    assert not [ask for ask in asked if ask[2] not in written.get(ask[:2], set())]


# --- Pods of steps ------------------------------------------------------------------------------


def test_the_model_s_templates_are_the_step_s_but_for_image_and_memory() -> None:
    step, *others = (
        find_object("PodTemplate", name, "base") for name in ("step", *MODEL_TEMPLATES)
    )
    (base,) = step["template"]["spec"]["containers"]
    for name, found in zip(MODEL_TEMPLATES, others, strict=True):
        template = copy.deepcopy(found["template"])
        (container,) = template["spec"]["containers"]
        assert container["image"] == locked_images()["trainer"].name
        assert (container["resources"] == base["resources"]) == (name == "model")
        container |= {"image": base["image"], "resources": base["resources"]}
        assert template == step["template"]


# --- Services -----------------------------------------------------------------------------------


def test_every_workload_that_is_applied_is_a_service_of_the_lab() -> None:
    """`lab status` shows it, and `lab up` waits until it serves."""
    applied = {
        (namespace_of(entry), entry["metadata"]["name"])
        for kind in ("Deployment", "StatefulSet", "DaemonSet")
        for entry in objects_of_kind(kind, "overlay", "chart")
    }
    assert applied == {(workload.namespace, workload.name) for workload in workloads.WORKLOADS}
