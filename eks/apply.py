"""The `apply` command: makes what an environment needs in AWS and in the cluster, each once."""

from __future__ import annotations

from collections.abc import Callable

from eks import (
    access,
    attestation,
    bucket,
    cluster,
    eksctl,
    filesystem,
    identity,
    plan,
    registry,
    release,
    repositories,
    s3_endpoint,
)
from eks.aws import check_account
from eks.image_check import check_images
from eks.machines import check_machines
from eks.rendering import AwsOutputs
from eks.site import Site
from lab.cluster import chart, docker, tools
from lab.cluster.api import Cluster
from lab.home.state import exclusive_lock, make_home
from lab.model import Access
from lab.progress import Report, phase, phase_title


def apply(site: Site, agree: Callable[[], None], report: Report = phase) -> None:
    """Bring the environment to the state of this checkout, with Airflow serving in it.

    Nothing is changed before all checks have passed and `agree` has returned. Raise subclasses of
    LabError.
    """
    make_home(site.config)
    with exclusive_lock(site.config):
        check_preconditions(site, report)
        agree()
        for step in STEPS:
            with report(phase_title(step)):
                step(site)


def check_preconditions(site: Site, report: Report) -> None:
    """Raise what prevents a promotion. Writes to nothing but the site's own folder."""
    with report("Check what is to be promoted: differences, attestation"):
        plan.check_promotable(site.environment, site.config, site.folder / "plan")
    with report("Check the account, the region and the tools"):
        eksctl.refuse_running_eksctl(site)
        for line in check_account_and_tools(site):
            print(f"  {line}")
    with report("Check the git server and what the Secrets need"):
        api = release.connect_api(site) if cluster.exists(site) else None
        release.check(site, api)
        repositories.check(site, repository_access(site, api))


def check_account_and_tools(site: Site) -> list[str]:
    """Check that account, region and tools are usable; return a line about each for the user."""
    chosen = site.environment
    check_account(site.aws, chosen)
    found = [f"account {chosen.account}", *check_machines(site)]
    found += [tools.describe(name) for name in ("kubectl", "helm")]
    found += [f"docker {docker.inspect_engine().version}", *eksctl.list_tools(site)]
    return [*found, f"chart {chart.describe(site.config)}", *check_images(site)]


def repository_access(site: Site, api: Cluster | None = None) -> Access:
    """Return access to the environment's repositories and bucket, with the user's credentials."""
    return access.build_access(site, access.find_git_account(api))


def read_aws_outputs(site: Site) -> AwsOutputs:
    """Read the file system's ID and the pushed images' digests from AWS."""
    return AwsOutputs(filesystem.find_id(site), registry.list_references(site))


def make_bucket(site: Site) -> None:
    """Make the bucket: versioned, encrypted, private, TLS only."""
    bucket.make(site)


def push_images(site: Site) -> None:
    """Push the images, of the attested sources, to the registry."""
    recheck_attestation(site)
    registry.make(site)


def make_cluster(site: Site) -> None:
    """Make the cluster, or complete it (15 to 20 minutes the first time)."""
    cluster.make(site)
    s3_endpoint.make(site)


def make_filesystem(site: Site) -> None:
    """Make the file system that the steps of a run share."""
    filesystem.make(site)


def make_identity(site: Site) -> None:
    """Give each service account its role: Pod Identity, and no key."""
    identity.make(site)


def store_dataset(site: Site) -> None:
    """Store the dataset and commit its first version, where there is none."""
    repositories.make(site, repository_access(site, release.connect_api(site)))


def recheck_attestation(site: Site) -> None:
    """Raise PromotionError if the checkout has changed since `apply` began.

    It may have: making a cluster takes 20 minutes.
    """
    attestation.check(site.config, attestation.public_key_path(site.environment, site.config))


def install_airflow(site: Site) -> None:
    """Apply the Secrets and the overlay; install Airflow by its chart."""
    recheck_attestation(site)
    release.make(site, read_aws_outputs(site))


# Each step needs the ones before it. An apply completes what a killed one left unfinished.
STEPS = (
    make_bucket,
    push_images,
    make_cluster,
    make_filesystem,
    make_identity,
    store_dataset,
    install_airflow,
)
