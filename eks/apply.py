"""Promotion: everything in AWS and in the cluster that an environment needs, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable

from eks import (
    access,
    attestation,
    bucket,
    cluster,
    filesystem,
    identity,
    plan,
    registry,
    release,
    repositories,
)
from eks.aws import check_account, region_offers
from eks.rendering import Made
from eks.site import Site
from lab.cluster import chart, docker, tools
from lab.cluster.api import Cluster
from lab.home.state import exclusive, make_home
from lab.model import Access
from lab.progress import Report, phase, title


def apply(site: Site, agree: Callable[[], None], report: Report = phase) -> None:
    """The environment is what the checkout says, and Airflow serves in it.

    Nothing is changed before everything was checked and `agree` has returned. Raises LabError's
    children.
    """
    make_home(site.config)
    with exclusive(site.config):
        check(site, report)
        agree()
        for step in STEPS:
            with report(title(step)):
                step(site)


def check(site: Site, report: Report) -> None:
    """Raises what keeps this from being promoted. Changes nothing but the site's own folder."""
    with report("Check what is to be promoted: differences, attestation"):
        plan.gate(site.environment, site.config, site.folder / "plan")
    with report("Check the account, the region and the tools"):
        cluster.refuse_another(site)
        for line in machine(site):
            print(f"  {line}")
    with report("Check the git server and what the Secrets need"):
        api = release.api_of(site) if cluster.exists(site) else None
        release.check(site, api)
        repositories.check(site, reached(site, api))


def machine(site: Site) -> list[str]:
    """The account, the region and the tools, each usable, as a person wants to read them."""
    chosen = site.environment
    check_account(site.aws, chosen)
    wanted = cluster.instance_types(site)
    region_offers(site.aws, wanted)
    offers = f", which has {', '.join(wanted)}" if wanted else ""
    found = [f"account {chosen.account}", f"region  {chosen.region}{offers}"]
    found += [tools.describe(name) for name in ("kubectl", "helm")]
    found += [f"docker {docker.engine().version}", *cluster.tools(site)]
    return [*found, f"chart {chart.describe(site.config)}"]


def reached(site: Site, api: Cluster | None = None) -> Access:
    """The environment's repositories and bucket, as the person who runs the command."""
    return access.to(site, access.git_account(api))


def known(site: Site) -> Made:
    """What AWS has made by now."""
    return Made(filesystem.id_of(site), registry.digests(site))


def make_bucket(site: Site) -> None:
    """Make the bucket: versioned, encrypted, private, TLS only."""
    bucket.make(site)


def push_images(site: Site) -> None:
    """Push the images, of the attested sources, to the registry."""
    still_attested(site)
    registry.make(site)


def make_cluster(site: Site) -> None:
    """Make the cluster, or complete it (15 to 20 minutes the first time)."""
    cluster.make(site)


def make_filesystem(site: Site) -> None:
    """Make the file system that the steps of a run share."""
    filesystem.make(site)


def make_identity(site: Site) -> None:
    """Give each service account its role: Pod Identity, and no key."""
    identity.make(site)


def store_dataset(site: Site) -> None:
    """Store the dataset and commit its first version, where there is none."""
    repositories.make(site, reached(site, release.api_of(site)))


def still_attested(site: Site) -> None:
    """Raises PromotionError when the checkout was changed since `apply` began: a cluster takes
    twenty minutes."""
    attestation.check(site.config, plan.signer(site.environment, site.config))


def install(site: Site) -> None:
    """Apply the Secrets and the overlay; install Airflow by its chart."""
    still_attested(site)
    release.make(site, known(site))


# In the order in which one needs the other. What a killed apply has left, the next one completes.
STEPS = (
    make_bucket,
    push_images,
    make_cluster,
    make_filesystem,
    make_identity,
    store_dataset,
    install,
)
