"""The end of an environment: exactly what the ledger and the tags name, who may do what first."""

from __future__ import annotations

from collections.abc import Callable

from eks import bucket, cluster, disks, filesystem, identity, registry, release
from eks.aws import check_account
from eks.site import Site
from lab.home.state import exclusive, make_home
from lab.progress import Report, phase, title


def revoke(site: Site) -> None:
    """Remove the associations, the roles and their policies."""
    identity.remove(site)


def clear_cluster(site: Site) -> None:
    """Remove Airflow, its volumes and its namespaces."""
    release.remove(site)


def remove_filesystem(site: Site) -> None:
    """Remove the shared file system."""
    filesystem.remove(site)


def remove_cluster(site: Site) -> None:
    """Remove the cluster, if an apply made it, and disks that it has left."""
    cluster.remove(site)
    disks.remove(site)


def remove_images(site: Site) -> None:
    """Remove the images from the registry."""
    registry.remove(site)


# The reverse of `apply.STEPS`, but that nobody may use the bucket any more before all else.
REMOVALS = (revoke, clear_cluster, remove_filesystem, remove_cluster, remove_images)


def destroy(site: Site, decide: Callable[[], str | None], report: Report = phase) -> None:
    """Nothing of the environment is in AWS, but for the bucket unless `decide` returns its name.

    `decide` is asked when the account is the right one, and before anything is removed. What is
    gone already is no failure, and a second call ends what a first one could not. Raises LabError's
    children.
    """
    make_home(site.config)
    with exclusive(site.config):
        with report("Check the account"):
            check_account(site.aws, site.environment)
            cluster.refuse_another(site)
        erase = decide()
        for removal in REMOVALS:
            with report(title(removal)):
                removal(site)
        with report("Remove the bucket" if erase else "Keep the bucket and every version in it"):
            bucket.remove(site, erase)
