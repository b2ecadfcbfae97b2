"""No secret of the lab is anywhere but where its secrets are kept."""

from __future__ import annotations

from lab.lab import Lab
from tests.support.control import Control

DAG = "dataset_pipeline"


def test_no_secret_is_in_a_log_an_argument_a_workspace_a_commit_or_an_xcom(
    lab: Lab, control: Control
) -> None:
    secrets = [secret.strip().encode() for secret in control.list_secrets()]
    assert len(secrets) >= 10
    run = lab.trigger(DAG)
    found: list[str] = []
    while not lab.find_run(DAG, run.id).has_ended:  # type: ignore[union-attr]
        found += find_leaks(control, secrets)
    lab.follow(run)
    found += find_leaks(control, secrets)
    for task in ("pull_data", "modify_data", "push_data"):
        found += [task for secret in secrets if secret.decode() in lab.log(run, task)]
    with lab.clone() as folder:
        shown = lab.git("log", "-p", "--all", cwd=folder) + lab.git("config", "-l", cwd=folder)
    found += ["git" for secret in secrets if secret.decode() in shown]
    assert not found


def find_leaks(control: Control, secrets: list[bytes]) -> list[str]:
    """List the names of the traces that hold a secret."""
    return [name for name, content in control.read_traces() if any(s in content for s in secrets)]


def test_the_address_of_no_server_holds_a_password(lab: Lab, control: Control) -> None:
    addresses = [lab.git_url, lab.s3_endpoint, lab.airflow_url]
    assert not [a for a in addresses if "@" in a or any(s in a for s in control.list_secrets())]
