"""Each option of EKS by its effect on the rendering: alone, and with all others."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.version import Version

from eks import environment, release, rendering
from lab.config import KIT
from lab.errors import EnvironmentFileError
from tests.support.needs import need_renderers
from tests.support.pods import RULES, Rule, find_offenders, find_secret_keys, short_name
from tests.support.promotion import (
    ALL,
    CUSTOM,
    NEEDED,
    REFUSED,
    can_connect,
    can_run_on,
    dump_objects,
    find_peer,
    find_secrets,
    parse_airflow_config,
    read_node_groups,
)
from tests.support.renderings import (
    SETTINGS,
    Object,
    Pod,
    eks_objects,
    eks_pods,
    namespace_of,
    render_for_eks,
    staging,
    temporary_home,
)
from tests.support.values import KEYS, check_values, close_schema, find_exposed

pytestmark = pytest.mark.kind

SETS = (*((name,) for name in ALL), ALL)
# What a person creates before such an option is turned on; it is not in the rendering.
MADE_BEFORE = {"rds-ca"}


def sets_with_option(name: str) -> list[tuple[str, ...]]:
    """Return the option alone, and among all."""
    return [(name,), ALL]


def get_object(options: Iterable[str], kind: str, name: str) -> Object:
    (found,) = list_objects(options, kind, name)
    return found


def list_objects(options: Iterable[str], kind: str, name: str = "") -> list[Object]:
    return [
        o
        for o in eks_objects(*options)
        if o["kind"] == kind and name in {"", o["metadata"]["name"]}
    ]


def find_pod(options: Iterable[str], name: str) -> Pod:
    """Return a pod by its short name."""
    return next(p for p in eks_pods(*options) if short_name(p) == name)


def can_reach(options: Iterable[str], *way: Any) -> bool:
    return can_connect(eks_objects(*options), eks_pods(*options), *way)


def read_variables(options: Iterable[str], container: Object) -> dict[str, str]:
    """Return a container's plain variables: those of its ConfigMaps, overridden by its own."""
    maps = [s["configMapRef"]["name"] for s in container["envFrom"] if "configMapRef" in s]
    given = [get_object(options, "ConfigMap", name)["data"] for name in maps]
    own = {e["name"]: e.get("value", "") for e in container["env"]}
    return {key: value for part in (*given, own) for key, value in part.items()}


def test_the_seeds_options_are_all_there() -> None:
    assert set(ALL) == {
        "external-secrets",
        "gpu",
        "high-availability",
        "ingress",
        "oidc",
        "private-repository",
        "rds",
        "remote-logs",
        "spot",
    }


# --- What holds for every option ------------------------------------------------------------------


@pytest.mark.parametrize("options", SETS, ids="-".join)
def test_every_object_is_one_that_kubernetes_knows(options: tuple[str, ...]) -> None:
    wanted = Version(f"{staging().kubernetes}.0")
    version = str(min(wanted, Version(kubernetes_validate.latest_version())))
    found = [o for o in eks_objects(*options) if o["kind"] not in CUSTOM]
    assert len(found) > 30
    for entry in found:
        kubernetes_validate.validate(entry, version, strict=True)


@pytest.mark.parametrize("options", SETS, ids="-".join)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_container(options: tuple[str, ...], rule: Rule) -> None:
    assert len(eks_pods(*options)) >= 9
    assert not find_offenders(rule, eks_pods(*options))


@pytest.mark.parametrize("options", SETS, ids="-".join)
def test_no_option_brings_a_key(options: tuple[str, ...]) -> None:
    said = dump_objects(eks_objects(*options))
    assert not [word for word in (*KEYS, "AKIA") if word in said]
    # The chart may require a Secret by its name, which then holds no key.
    found = [o for o in eks_objects(*options) if o["kind"] != "Secret"]
    assert not find_exposed(found)
    assert {o["metadata"]["name"] for o in list_objects(options, "Secret")} <= {
        "airflow-pgbouncer-stats"
    }


@pytest.mark.parametrize("options", SETS, ids="-".join)
def test_whatever_a_pod_asks_for_is_there(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets are those that `apply` writes or the operator brings; no pod starts without them."""
    written = list_secrets(options, monkeypatch)
    asked = {(p.namespace, name) for p in eks_pods(*options) for name in find_secrets(p.spec)}
    assert len(asked) >= 7
    assert asked <= set(written)
    keys = {(p.namespace, *ref) for p in eks_pods(*options) for ref in find_secret_keys(p.spec)}
    assert not [k for k in keys if written[k[:2]] and k[2] not in written[k[:2]]]
    maps = {name for p in eks_pods(*options) for name in find_config_maps(p.spec)}
    there = {o["metadata"]["name"] for o in list_objects(options, "ConfigMap")}
    assert maps - there == (MADE_BEFORE if "rds" in options else set())


def list_secrets(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[str, str], set[str]]:
    """Return the Secrets of a cluster with these options, and their keys where these are known."""
    for given in release.GIVEN:
        monkeypatch.setenv(given.variable, "given")
    rendered = {
        (namespace_of(o), o["metadata"]["name"]): set(o["data"])
        for o in list_objects(options, "Secret")
    }
    if release.EXTERNAL in options:
        brought = list_objects(options, "ExternalSecret")
        return rendered | {(namespace_of(o), o["spec"]["target"]["name"]): set() for o in brought}
    wanted = release.build_secrets(staging(*options), NoSecrets())  # type: ignore[arg-type]
    return rendered | {name: set(content) for name, content in wanted.items()}


class NoSecrets:
    """A cluster without a Secret."""

    def read_secret(self, *_: str) -> None:
        return None


def find_config_maps(part: object) -> set[str]:
    found: set[str] = set()
    if isinstance(part, list):
        found = {name for item in part for name in find_config_maps(item)}
    if isinstance(part, dict):
        for key in ("configMap", "configMapRef", "configMapKeyRef"):
            if isinstance(part.get(key), dict):
                found.add(part[key]["name"])
        found |= {name for value in part.values() for name in find_config_maps(value)}
    return found


def option_file(option: str, name: str) -> Path:
    return KIT / environment.OPTIONS / option / name


@pytest.mark.parametrize("option", ALL)
def test_an_options_values_are_what_the_chart_takes(option: str) -> None:
    if option_file(option, "values.yaml").exists():
        check_values(yaml.safe_load(option_file(option, "values.yaml").read_text("utf-8")))


def test_the_schema_beside_the_repository_is_the_charts_own() -> None:
    """People without the chart rely on it."""
    file = KIT.parent / "shared" / "schemas" / "airflow-chart-1.22.0.values.schema.json"
    if not file.exists():
        pytest.skip("the schema is not beside this checkout")
    import jsonschema

    known = json.loads(file.read_text("utf-8"))
    schema = {**close_schema(known), "definitions": known["definitions"]}
    for option in ALL:
        if option_file(option, "values.yaml").exists():
            found = yaml.safe_load(option_file(option, "values.yaml").read_text("utf-8"))
            jsonschema.Draft7Validator(schema).validate(found)


def read_description(option: str) -> dict[str, str]:
    """Parse the head of an option's file: what it does, its settings, what it needs."""
    text = option_file(option, "kustomization.yaml").read_text("utf-8")
    head = text[: text.index("apiVersion:")].replace("\n#", "")
    found = re.fullmatch(
        r"# (?P<what>.+?) +settings +(?P<settings>.+?) +beforehand +(?P<needs>.+)", head, re.DOTALL
    )
    assert found, head
    return {key: " ".join(value.split()) for key, value in found.groupdict().items()}


@pytest.mark.parametrize("option", ALL)
def test_an_option_says_which_settings_it_asks_for(option: str) -> None:
    asked = find_required_settings(option)
    said = set(re.findall(r"[a-z]+(?:_[a-z]+)*", read_description(option)["settings"])) & set(
        SETTINGS
    )
    assert said == asked
    assert asked or read_description(option)["settings"] == "none"


def find_required_settings(option: str) -> set[str]:
    """Return the settings of which none may be missing if the option is to be rendered."""
    folder = option_file(option, "")
    text = "".join(f.read_text("utf-8") for f in sorted(folder.rglob("*")) if f.is_file())
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return set(environment.BLANK.findall("\n".join(lines))) & set(SETTINGS) | (
        {"pipelines_host_key"} if option == "private-repository" else set()
    )


@pytest.mark.parametrize("option", ["ingress", "oidc", "rds"])
def test_a_setting_that_is_missing_is_named(option: str) -> None:
    need_renderers()
    for missing in find_required_settings(option):
        less = {key: value for key, value in SETTINGS.items() if key != missing}
        with temporary_home() as config, pytest.raises(EnvironmentFileError, match=missing):
            rendering.render_eks(replace(staging(option), settings=less), config, config.run)


def test_the_order_of_options_does_not_matter() -> None:
    assert render_for_eks(*reversed(ALL)).objects() == list(eks_objects(*ALL))


@pytest.mark.parametrize("way", [w for w in NEEDED if w[1] != "postgresql"], ids=str)
def test_no_option_closes_a_way_that_is_needed(way: tuple[Any, ...]) -> None:
    assert can_reach(ALL, *way)


OPENED = {
    ("api-server", "agent", 80),  # remote-logs
    *((name, "github", 22) for name in ("scheduler", "worker", "dag-processor")),
    ("in-the-vpc", "api-server", 8080),  # ingress
    ("api-server", "scheduler", 8793),  # remote-logs
}


@pytest.mark.parametrize(
    "way", [w for w in REFUSED if w not in OPENED and "postgresql" not in w], ids=str
)
def test_no_option_opens_a_way_that_nobody_needs(way: tuple[Any, ...]) -> None:
    assert not can_reach(ALL, *way)


# --- rds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", sets_with_option("rds"), ids="-".join)
def test_rds_leaves_no_database_in_the_cluster(options: tuple[str, ...]) -> None:
    assert get_object((), "StatefulSet", "postgresql")
    assert not [o for o in eks_objects(*options) if namespace_of(o) == "stores"]
    assert "stores" not in {o["metadata"]["name"] for o in list_objects(options, "Namespace")}


@pytest.mark.parametrize("name", ["scheduler", "api-server", "worker", "run-airflow-migrations"])
def test_rds_is_reached_by_tls_with_its_name_checked(name: str) -> None:
    container = find_pod(["rds"], name).containers[-1]
    env = read_variables(["rds"], container)
    assert env["PGSSLMODE"] == "verify-full"
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    volume = mounts[str(Path(env["PGSSLROOTCERT"]).parent)]
    (held,) = (v for v in find_pod(["rds"], name).spec["volumes"] if v["name"] == volume)
    assert held["configMap"]["name"] == "rds-ca"
    assert Path(env["PGSSLROOTCERT"]).name in read_description("rds")["needs"]
    assert can_reach(["rds"], name, "rds", 5432)


def test_the_address_of_rds_is_one_that_both_drivers_understand() -> None:
    """asyncpg takes no `sslmode` in an address: libpq and asyncpg read PGSSLMODE."""
    assert "?" not in release.RDS


def test_rds_is_reached_by_nobody_else() -> None:
    for name in ("step", "training"):
        assert not can_reach(["rds"], name, "rds", 5432)
    assert not can_reach(["rds"], "scheduler", "s3", 5432)


def test_lists_that_rds_replaces_lose_nothing() -> None:
    for pod in eks_pods("rds"):
        if pod.namespace != "airflow":
            continue
        (before,) = (p for p in eks_pods() if p.name == pod.name)
        names = {v["name"] for v in before.spec["volumes"]}
        assert names <= {v["name"] for v in pod.spec["volumes"]}


# --- ingress --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", sets_with_option("ingress"), ids="-".join)
def test_ingress_is_a_load_balancer_with_tls_inside_the_vpc(options: tuple[str, ...]) -> None:
    found = get_object(options, "Ingress", "airflow-ingress")
    said = {
        key.removeprefix("alb.ingress.kubernetes.io/"): value
        for key, value in found["metadata"]["annotations"].items()
    }
    assert found["spec"]["ingressClassName"] == "alb"
    assert said["scheme"] == "internal"
    assert said["certificate-arn"] == SETTINGS["certificate"]
    assert said["ssl-redirect"] == "443"
    assert {"HTTPS": 443} in json.loads(said["listen-ports"])
    assert said["ssl-policy"].startswith("ELBSecurityPolicy-TLS13-1-2")
    assert said["target-type"] == "ip"
    (rule,) = found["spec"]["rules"]
    assert rule["host"] == SETTINGS["host"]
    (path,) = rule["http"]["paths"]
    service = get_object(options, "Service", path["backend"]["service"]["name"])
    assert path["backend"]["service"]["port"]["name"] in {
        p["name"] for p in service["spec"]["ports"]
    }


@pytest.mark.parametrize("options", sets_with_option("ingress"), ids="-".join)
def test_ingress_lets_the_load_balancer_in_and_nobody_else(options: tuple[str, ...]) -> None:
    assert can_reach(options, "in-the-vpc", "api-server", 8080)
    assert not can_reach(options, "s3", "api-server", 8080)
    assert not can_reach(options, "in-the-vpc", "scheduler", 8793)


@pytest.mark.parametrize("options", sets_with_option("ingress"), ids="-".join)
def test_ingress_tells_airflow_its_address(options: tuple[str, ...]) -> None:
    settings = parse_airflow_config(eks_objects(*options))
    assert settings["api"]["base_url"] == f"https://{SETTINGS['host']}"
    assert settings["core"]["execution_api_server_url"].startswith(
        "http://airflow-api-server:8080/"
    )
    assert settings["fab"]["enable_proxy_fix"] == "True"
    container = find_pod(options, "api-server").containers[-1]
    assert container["args"][-1] == "exec airflow api-server --proxy-headers"
    assert read_variables(options, container)["FORWARDED_ALLOW_IPS"] == SETTINGS["vpc_cidr"]


# --- oidc -----------------------------------------------------------------------------------------


class SecurityManager:
    """A stand-in for Airflow's own class, with only what is called."""


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what Airflow's API server reads: its configuration, executed with its pod's variables.

    FAB's own classes are used where FAB is installed, and empty ones elsewhere.
    """
    container = find_pod(["oidc"], "api-server").containers[-1]
    for name, value in read_variables(["oidc"], container).items():
        if name.startswith("OIDC_"):
            monkeypatch.setenv(name, value or "the-secret")
    ensure_module(monkeypatch, "flask_appbuilder.const", AUTH_OAUTH=4)
    package = "airflow.providers.fab.auth_manager.security_manager"
    ensure_module(
        monkeypatch, f"{package}.override", FabAirflowSecurityManagerOverride=SecurityManager
    )
    (text,) = get_object(["oidc"], "ConfigMap", "airflow-api-server-config")["data"].values()
    found: dict[str, Any] = {}
    exec(compile(text, "webserver_config.py", "exec"), found)  # noqa: S102  it is ours
    return found


def ensure_module(monkeypatch: pytest.MonkeyPatch, name: str, **content: object) -> None:
    """Make a module of this name importable: the installed one, or else one with this content."""
    try:
        __import__(name)
    except ImportError:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            part = ".".join(parts[:end])
            if part not in sys.modules:
                module = ModuleType(part)
                module.__path__ = []
                monkeypatch.setitem(sys.modules, part, module)
        vars(sys.modules[name]).update(content)


def test_oidc_is_airflows_login(login: dict[str, Any]) -> None:
    settings = parse_airflow_config(eks_objects("oidc"))
    assert settings["core"]["auth_manager"].endswith("FabAuthManager")  # it reads that file
    assert login["AUTH_TYPE"] == 4
    (provider,) = login["OAUTH_PROVIDERS"]
    remote = provider["remote_app"]
    assert remote["server_metadata_url"] == (
        f"{SETTINGS['oidc_issuer']}/.well-known/openid-configuration"
    )
    assert remote["client_id"] == SETTINGS["oidc_client_id"]
    assert remote["client_secret"] == "the-secret"
    assert remote["client_kwargs"]["code_challenge_method"] == "S256"


def test_oidc_maps_groups_to_roles_and_nobody_else_may_do_anything(login: dict[str, Any]) -> None:
    assert login["AUTH_ROLES_MAPPING"] == {
        SETTINGS["oidc_admins"]: ["Admin"],
        SETTINGS["oidc_operators"]: ["Op"],
        SETTINGS["oidc_viewers"]: ["Viewer"],
    }
    assert login["AUTH_ROLES_SYNC_AT_LOGIN"] is True
    assert login["AUTH_USER_REGISTRATION_ROLE"] == "Public"


@pytest.mark.parametrize(
    ("claims", "groups"),
    [
        ({"groups": ["platform", "others"]}, ["platform", "others"]),
        ({"groups": "platform"}, ["platform"]),
        ({"groups": None}, []),
        ({}, []),
    ],
    ids=str,
)
def test_oidc_takes_an_account_from_what_was_signed(
    login: dict[str, Any], claims: Mapping[str, Any], groups: list[str]
) -> None:
    manager = login["SECURITY_MANAGER_CLASS"]
    signed = {"sub": "u-1", "email": "a@example.com", "given_name": "A", "family_name": "B"}
    found = manager.get_oauth_user_info(
        object.__new__(manager), "oidc", {"userinfo": {**signed, **claims}, "access_token": "x"}
    )
    assert found["username"] == "u-1"
    assert found["role_keys"] == groups


@pytest.mark.parametrize("options", sets_with_option("oidc"), ids="-".join)
def test_only_the_api_server_has_the_clients_secret(options: tuple[str, ...]) -> None:
    knowing = {short_name(p) for p in eks_pods(*options) if "airflow-oidc" in find_secrets(p.spec)}
    assert knowing == {"api-server"}
    assert can_reach(options, "api-server", "github", 443)
    container = find_pod(options, "api-server").containers[-1]
    assert "/opt/airflow/webserver_config.py" in {m["mountPath"] for m in container["volumeMounts"]}


# --- private-repository ---------------------------------------------------------------------------

CLONING = {"scheduler", "dag-processor", "worker"}


@pytest.mark.parametrize("options", sets_with_option("private-repository"), ids="-".join)
def test_what_clones_has_the_deploy_key_and_a_way_to_the_server(options: tuple[str, ...]) -> None:
    having = {
        short_name(p)
        for p in eks_pods(*options)
        for m in p.containers[-1].get("volumeMounts") or []
        if m["mountPath"] == release.SSH_FOLDER and m["readOnly"]
    }
    assert having == CLONING
    for name in CLONING:
        (volume,) = (
            v for v in find_pod(options, name).spec["volumes"] if v["name"] == "pipelines-ssh"
        )
        assert volume["secret"]["defaultMode"] == 0o440
        assert can_reach(options, name, "github", 22)
        assert not can_reach(options, name, "metadata", 22)
    for name in ("step", "triggerer", "api-server"):
        assert not can_reach(options, name, "github", 22)


def test_the_connection_names_the_files_that_are_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in release.GIVEN:
        monkeypatch.setenv(given.variable, "given")
    chosen = replace(staging("private-repository"), pipelines="ssh://git@github.com/me/p.git")
    wanted = release.build_secrets(chosen, NoSecrets())  # type: ignore[arg-type]
    files_there = set(wanted["airflow", "pipelines-ssh"])
    for text in (
        wanted["airflow", "pipelines-credentials"]["connection"],
        wanted["airflow", "pipelines-ssh"]["config"],
    ):
        named = set(re.findall(rf"{release.SSH_FOLDER}/([\w-]+)", text))
        assert named
        assert named <= files_there


# --- external-secrets -----------------------------------------------------------------------------


def test_the_operator_brings_every_secret_that_apply_would_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for extra in ((), ("oidc",), ("private-repository",), ("oidc", "private-repository")):
        written = set(list_secrets(extra, monkeypatch))
        options = ("external-secrets", *extra)
        targets = {
            (namespace_of(o), o["spec"]["target"]["name"])
            for o in list_objects(options, "ExternalSecret")
        }
        assert targets == written, extra


def test_without_a_database_in_the_cluster_nobody_brings_its_password() -> None:
    found = list_objects(("external-secrets", "rds"), "ExternalSecret")
    assert {namespace_of(o) for o in found} == {"airflow"}


@pytest.mark.parametrize("options", sets_with_option("external-secrets"), ids="-".join)
def test_every_secret_is_looked_for_in_a_store_of_its_namespace(options: tuple[str, ...]) -> None:
    stores = {
        (namespace_of(o), o["metadata"]["name"]) for o in list_objects(options, "SecretStore")
    }
    for entry in list_objects(options, "ExternalSecret"):
        spec = entry["spec"]
        assert entry["apiVersion"] == "external-secrets.io/v1"
        assert (namespace_of(entry), spec["secretStoreRef"]["name"]) in stores
        assert spec["secretStoreRef"]["kind"] == "SecretStore"
        remote = [part["extract"]["key"] for part in spec.get("dataFrom", [])]
        remote += [part["remoteRef"]["key"] for part in spec.get("data", [])]
        assert all(key.startswith("mlops-lab/staging/airflow-") for key in remote) or (
            remote == [f"mlops-lab/staging/{entry['metadata']['name']}"]
        )


@pytest.mark.parametrize("options", sets_with_option("external-secrets"), ids="-".join)
def test_a_store_has_no_key(options: tuple[str, ...]) -> None:
    for store in list_objects(options, "SecretStore"):
        assert store["spec"]["provider"] == {
            "aws": {"service": "SecretsManager", "region": staging().region}
        }


def test_a_brought_secret_says_which_keys_it_has() -> None:
    """People have to put them into Secrets Manager."""
    text = option_file("external-secrets", "secrets.yaml").read_text("utf-8")
    for document in text.split("\n---\n"):
        entry = yaml.safe_load(document)
        if "dataFrom" in entry["spec"]:
            assert re.search(r"^# \(.+\)$", document, re.MULTILINE), entry["metadata"]["name"]


# --- remote-logs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", sets_with_option("remote-logs"), ids="-".join)
def test_logs_are_in_the_bucket_by_the_pods_own_identity(options: tuple[str, ...]) -> None:
    settings = parse_airflow_config(eks_objects(*options))["logging"]
    assert settings["remote_logging"] == "True"
    assert settings["remote_base_log_folder"] == f"s3://{staging().bucket}/logs"
    for name in ("scheduler", "worker", "triggerer", "api-server"):
        env = read_variables(options, find_pod(options, name).containers[-1])
        connection = env[f"AIRFLOW_CONN_{settings['remote_log_conn_id'].upper()}"]
        assert connection == "aws://"  # it says nothing: the SDK finds the identity
        assert can_reach(options, name, "agent", 80)
        assert can_reach(options, name, "s3", 443)


@pytest.mark.parametrize("options", sets_with_option("remote-logs"), ids="-".join)
def test_no_volume_is_left_for_logs(options: tuple[str, ...]) -> None:
    assert not list_objects(options, "PersistentVolumeClaim", "airflow-logs")
    assert not list_objects(options, "StorageClass", "efs-logs")
    assert "airflow-logs" not in dump_objects(eks_objects(*options))
    assert not [o for o in list_objects(options, "StatefulSet") if namespace_of(o) == "airflow"]
    for name in ("scheduler", "worker", "triggerer", "dag-processor"):
        (logs,) = (v for v in find_pod(options, name).spec["volumes"] if v["name"] == "logs")
        assert logs["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("options", sets_with_option("remote-logs"), ids="-".join)
def test_a_running_tasks_log_is_had_from_its_pod(options: tuple[str, ...]) -> None:
    assert can_reach(options, "api-server", "scheduler", 8793)
    assert can_reach(options, "api-server", "triggerer", 8794)
    assert not can_reach(options, "step", "scheduler", 8793)
    assert not can_reach(options, "worker", "triggerer", 8794)
    assert parse_airflow_config(eks_objects(*options))["core"]["hostname_callable"].endswith(
        "ip_address"
    )
    for name in ("scheduler", "triggerer"):
        container = find_pod(options, name).containers[-1]
        assert "--skip-serve-logs" not in container["args"][-1]
        assert {p["containerPort"] for p in container["ports"]} & {8793, 8794}


def test_the_scheduler_is_as_before_but_for_its_logs() -> None:
    """It becomes another kind of object, of which the promotion compares no field."""
    before, after = (find_pod(options, "scheduler").spec for options in ((), ("remote-logs",)))
    apart = json.loads(json.dumps(after))
    (container,) = apart["containers"]
    container["args"][-1] += " --skip-serve-logs"
    (logs,) = (v for v in apart["volumes"] if v["name"] == "logs")
    del logs["emptyDir"]
    logs["persistentVolumeClaim"] = {"claimName": "airflow-logs"}
    assert sort_volumes(apart) == sort_volumes(before)


def sort_volumes(spec: Object) -> Object:
    return {**spec, "volumes": sorted(spec["volumes"], key=lambda v: str(v["name"]))}


# --- high-availability ----------------------------------------------------------------------------

COMPONENTS = ("scheduler", "api-server", "dag-processor", "triggerer", "pgbouncer")


@pytest.mark.parametrize("options", sets_with_option("high-availability"), ids="-".join)
@pytest.mark.parametrize("name", COMPONENTS)
def test_there_are_two_of_each_in_two_zones(options: tuple[str, ...], name: str) -> None:
    found = find_pod(options, name)
    assert found.count == 2
    (spread,) = found.spec["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"
    assert spread["labelSelector"]["matchLabels"].items() <= found.labels.items()
    assert set(spread["matchLabelKeys"]) <= set(found.labels)
    budgets = [
        o["spec"]
        for o in list_objects(options, "PodDisruptionBudget")
        if o["spec"]["selector"]["matchLabels"].items() <= found.labels.items()
    ]
    assert [b["maxUnavailable"] for b in budgets] == [1]


@pytest.mark.parametrize("options", sets_with_option("high-availability"), ids="-".join)
def test_airflow_reaches_its_database_by_pgbouncer_only(options: tuple[str, ...]) -> None:
    database = "rds" if "rds" in options else "postgresql"
    assert can_reach(options, "pgbouncer", database, 5432)
    assert can_reach(options, "run-airflow-migrations", database, 5432)
    for name in ("scheduler", "api-server", "dag-processor", "triggerer", "worker"):
        assert can_reach(options, name, "pgbouncer", 6543)
        assert not can_reach(options, name, database, 5432)
        for container in find_pod(options, name).containers:
            env = read_variables(options, container)
            assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(
                "postgresql://airflow@airflow-pgbouncer:6543/airflow"
            )
    assert not can_reach(options, "step", "pgbouncer", 6543)
    service = get_object(options, "Service", "airflow-pgbouncer")
    assert 6543 in {p["port"] for p in service["spec"]["ports"]}


@pytest.mark.parametrize("options", sets_with_option("high-availability"), ids="-".join)
def test_migrations_go_to_the_database_itself(options: tuple[str, ...]) -> None:
    (container,) = find_pod(options, "run-airflow-migrations").containers
    (direct,) = (e for e in container["env"] if e["name"] == "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    assert direct["valueFrom"]["secretKeyRef"] == {"name": "airflow-metadata", "key": "connection"}
    assert {"LOGIN_USER", "LOGIN_PASSWORD"} <= {e["name"] for e in container["env"]}


def start_pgbouncer(options: tuple[str, ...], folder: Path, password: str) -> Path:
    """Run the start command of PgBouncer's container in this folder, where it writes its files."""
    container = next(
        c for c in find_pod(options, "pgbouncer").containers if c["name"] == "pgbouncer"
    )
    settings = folder / "settings"
    settings.mkdir()
    held = {
        **get_object(options, "ConfigMap", "airflow-pgbouncer")["data"],
        **get_object(options, "ConfigMap", "airflow-environment")["data"],
        "password": password,
    }
    for name, text in held.items():
        (settings / name).write_text(text, "utf-8")
    (folder / "pgbouncer").write_text("#!/bin/sh\n", "utf-8")
    (folder / "pgbouncer").chmod(0o700)
    *shell, text = container["command"]
    text = text.replace("/tmp/", f"{folder}/").replace("/etc/pgbouncer/lab", str(settings))
    env = {"PATH": f"{folder}:/usr/bin:/bin"}
    subprocess.run([*shell, text], env=env, check=True, timeout=30)
    return folder


@pytest.mark.parametrize("options", sets_with_option("high-availability"), ids="-".join)
def test_pgbouncer_knows_the_database_and_the_password(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    folder = start_pgbouncer(options, tmp_path, 'it\'s "so" 100 % \\ $secret')
    users = (folder / "users.txt").read_text("utf-8").splitlines()
    known = get_object(options, "ConfigMap", "airflow-environment")["data"]
    password = 'it\'s ""so"" 100 % \\ $secret'
    names = {"airflow", known["PGUSER"]}
    assert set(users) == {'"stats" ""', *(f'"{name}" "{password}"' for name in names)}
    databases = (folder / "databases.ini").read_text("utf-8")
    assert databases == (
        f"airflow = host={known['PGHOST']} port=5432 dbname={known['PGDATABASE']}"
        f" user={known['PGUSER']}\n"
    )
    tls = (folder / "tls.ini").read_text("utf-8")
    assert (tls == "server_tls_sslmode = disable\n") == ("rds" not in options)
    if "rds" in options:
        assert known["PGHOST"] == SETTINGS["rds_host"]
        assert tls.splitlines() == [
            "server_tls_sslmode = verify-full",
            f"server_tls_ca_file = {known['PGSSLROOTCERT']}",
        ]
    assert stat.S_IMODE((folder / "users.txt").stat().st_mode) == 0o600


def test_pgbouncers_own_settings_fit_what_is_written() -> None:
    data = get_object(["high-availability"], "ConfigMap", "airflow-pgbouncer")["data"]
    text = data["pgbouncer.ini"]
    assert re.findall(r"^%include (.+)$", text, re.MULTILINE) == [
        "/tmp/databases.ini",
        "/tmp/tls.ini",
    ]
    assert "listen_port = 6543" in text
    # A second section of this name would reset all of the first to the defaults.
    assert text.count("[pgbouncer]") == 1
    assert re.search(r"^max_prepared_statements = [1-9]", text, re.MULTILINE)
    rules = [line.split() for line in data["hba.conf"].splitlines() if line[0] != "#"]
    assert [rule[-1] for rule in rules if rule[1] != "pgbouncer"] == ["scram-sha-256"] * 2
    assert [rule[3] for rule in rules if rule[-1] == "trust"] == ["127.0.0.1/32"]


def test_the_exporters_secret_holds_no_password() -> None:
    import base64

    (value,) = get_object(["high-availability"], "Secret", "airflow-pgbouncer-stats")[
        "data"
    ].values()
    assert base64.b64decode(value) == (
        b"postgresql://stats@127.0.0.1:6543/pgbouncer?sslmode=disable"
    )


# --- spot and gpu ---------------------------------------------------------------------------------


def list_node_roles(options: tuple[str, ...], name: str) -> list[str]:
    """List the roles of the nodes on which a pod may run."""
    groups = read_node_groups()
    return [role for role, group in groups.items() if can_run_on(find_pod(options, name), group)]


@pytest.mark.parametrize("options", sets_with_option("spot"), ids="-".join)
def test_spot_takes_tasks_and_nothing_else(options: tuple[str, ...]) -> None:
    assert read_node_groups()["steps"]["spot"] is True
    for name in ("step", "model", "worker"):
        assert list_node_roles(options, name) == ["steps"]
    for name in ("scheduler", "api-server", "triggerer", "dag-processor"):
        assert list_node_roles(options, name) == ["airflow"]
    assert list_node_roles(("spot",), "training") == ["steps"]


def test_steps_run_among_airflow_without_spot() -> None:
    for name in ("step", "model", "training", "worker"):
        assert list_node_roles((), name) == ["airflow"]


@pytest.mark.parametrize("options", [("gpu",), ("gpu", "spot"), ("spot", "gpu"), ALL], ids="-".join)
def test_gpu_is_for_training_alone(options: tuple[str, ...]) -> None:
    resources = find_pod(options, "training").containers[0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert resources["limits"]["memory"]
    assert list_node_roles(options, "training") == ["training"]
    for name in ("step", "model", "worker"):
        assert "nvidia.com/gpu" not in find_pod(options, name).containers[0]["resources"]["limits"]
        assert "training" not in list_node_roles(options, name)


def test_a_step_keeps_everything_else_on_a_spot_node() -> None:
    before, after = (find_pod(options, "step").spec for options in ((), ("spot",)))
    assert {k: v for k, v in after.items() if k not in {"nodeSelector", "tolerations"}} == before
    assert find_peer("step", eks_pods("spot")) == find_peer("step", eks_pods())
