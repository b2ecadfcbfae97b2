"""Build the API that tasks and triggers talk to in its newest version only.

Airflow builds it for each version that it ever had, nine in 3.3, so that tasks of older Airflows
can go on while it is upgraded. Where all of them are of one Airflow, that is 3 s of work for
nothing when the API server starts, and as much when the triggerer does.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "NEWEST_TASK_API_ONLY"  # set where no task of an older Airflow can be running
BUILDING = ("api-server", "triggerer")  # the components that build the API


def keep_newest() -> None:
    """Leave only the newest version, in a component that builds the API and where that is right."""
    if os.environ.get(VARIABLE) and sys.argv[1:2] and sys.argv[1] in BUILDING:
        leave_older_versions_out()


def leave_older_versions_out() -> None:
    """Take the older versions out of the API, and the routes that exist in them only."""
    from airflow.api_fastapi.execution_api import versions
    from airflow.api_fastapi.execution_api.routes import execution_api_router
    from cadwyn import HeadVersion, Version, VersionBundle
    from cadwyn.route_generation import _DELETED_ROUTE_TAG

    newest = max(version.value for version in versions.bundle.versions)
    versions.bundle = VersionBundle(HeadVersion(), Version(newest))
    execution_api_router.routes[:] = [
        route
        for route in execution_api_router.routes
        if _DELETED_ROUTE_TAG not in getattr(route, "tags", ())
    ]
