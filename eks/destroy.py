"""The `destroy` command: removes exactly what the ledger and the tags name, access rights first."""

from __future__ import annotations

from collections.abc import Callable

from eks import (
    bucket,
    cluster,
    disks,
    eksctl,
    filesystem,
    identity,
    registry,
    release,
    s3_endpoint,
)
from eks.aws import check_account
from eks.site import Site
from lab.home.state import exclusive_lock, make_home
from lab.progress import Report, phase, phase_title


def revoke_access(site: Site) -> None:
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
    s3_endpoint.remove(site)
    cluster.remove(site)
    disks.remove(site)


def remove_images(site: Site) -> None:
    """Remove the images from the registry."""
    registry.remove(site)


# The reverse of `apply.STEPS`, except that access to the bucket is revoked before all else.
REMOVALS = (revoke_access, clear_cluster, remove_filesystem, remove_cluster, remove_images)


def destroy(site: Site, decide: Callable[[], str | None], report: Report = phase) -> None:
    """Remove the environment from AWS, and its bucket too if `decide` returns the bucket's name.

    `decide` is called once the account has been checked, before anything is removed. What is
    already gone is no failure, and a second call finishes what the first could not. Raise
    subclasses of LabError.
    """
    make_home(site.config)
    with exclusive_lock(site.config):
        with report("Check the account"):
            check_account(site.aws, site.environment)
            eksctl.refuse_running_eksctl(site)
        erase = decide()
        for removal in REMOVALS:
            with report(phase_title(removal)):
                removal(site)
        with report("Remove the bucket" if erase else "Keep the bucket and every version in it"):
            bucket.remove(site, erase)
