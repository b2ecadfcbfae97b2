"""The `verify` command: no pod can read a static key; a run's commit restores its data."""

from __future__ import annotations

from collections.abc import Iterable

from eks import access, identity, release
from eks.aws import check_account
from eks.site import Site
from lab.client import runs, verify
from lab.cluster import forward, static_keys
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW, API_SERVER, STORES
from lab.errors import NotRunningError, PromotionError, StaticKey
from lab.model import Access, Proof
from lab.progress import Report, phase

FORWARD_SECONDS = 120
RUN_SECONDS = 1800  # a node may have to be added for the first step


def prove(site: Site, report: Report = phase) -> Proof:
    """Run the pipeline on the cluster and prove from here what it made.

    Raise StaticKey, RunError or ProofError.
    """
    with report("Check the account"):
        check_account(site.aws, site.environment)
    api = release.connect_api(site)
    with report("Look for static keys in every pod, template, Secret and ConfigMap"):
        refuse_keys(api)
        refuse_missing_identity(api, identity.service_accounts(site.environment))
    with forward.forwarding(
        api.kubeconfig, API_SERVER, site.folder / "forward.log", FORWARD_SECONDS
    ) as url:
        reached = access.build_access(site, access.find_git_account(api), url, airflow_account(api))
        return run_and_prove(reached, api, site.config.project.dag, report)


def run_and_prove(lab: Access, api: Cluster, dag: str, report: Report = phase) -> Proof:
    """Run the project's DAG, searching its pods for static keys meanwhile; prove what it made."""
    with report(f"Run {dag}"):
        run = runs.trigger(lab, dag, {})
        runs.follow(lab, run, RUN_SECONDS, lambda line: watch_pods(api, line))
    with report("Prove what it made: commit, pointer, object, bytes, lineage"):
        proof = verify.prove_commit(lab, "main")
    if proof.run_id != run.id:
        raise PromotionError(
            f"the newest version was made by {proof.run_id}, and not by {run.id}",
            "somebody else runs the pipeline: verify again",
        )
    return proof


def watch_pods(api: Cluster, line: str) -> None:
    """Print a line of the run and search the current pods for keys: steps live only seconds."""
    print(f"  {line}", flush=True)
    refuse_keys(api)


def refuse_keys(api: Cluster) -> None:
    """Raise StaticKey when a pod of ours could read a static key."""
    if found := static_keys.find_static_keys(api, AIRFLOW, STORES):
        shown = "\n".join(f"    {place}" for place in found)
        raise StaticKey(
            f"static keys are within reach of {len({place.pod for place in found})} pods:\n{shown}",
            "remove them; Pod Identity gives the pods what they need",
        )


def refuse_missing_identity(api: Cluster, accounts: Iterable[str]) -> None:
    """Raise PromotionError when a pod that should have an identity was given none."""
    if lacking := static_keys.list_pods_without_identity(api, AIRFLOW, accounts):
        raise PromotionError(
            f"EKS gave no identity to {', '.join(lacking)}",
            "pods get one when they start: delete these; see the agent's DaemonSet in kube-system",
        )


def airflow_account(api: Cluster) -> access.Account:
    """Return Airflow's first account. Raise NotRunningError before an apply has made it."""
    known = api.read_secret(AIRFLOW, "airflow-login")
    if not known:
        raise NotRunningError("the cluster has no Airflow of ours", "nox -s eks -- apply")
    return access.Account(known["user"], known["password"])
