"""Clients of AWS's protocols, by botocore: of EKS Auth, and of the STS of S3's server."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

CONNECTIONS = 16  # as many as a server has threads


def open_client(
    service: str,
    region: str,
    endpoint: str,
    timeouts: tuple[float, float],
    signature: Any = None,
    **keys: str,
) -> Any:
    """Return a client of a service of AWS, at an endpoint of one's own if it is not empty.

    `timeouts` are the seconds for a connection and for an answer; nothing is tried twice. Requests
    are signed with the `keys`, or those that botocore finds, unless `signature` is UNSIGNED.
    """
    from botocore.config import Config

    connect, read = timeouts
    config = Config(
        connect_timeout=connect,
        read_timeout=read,
        retries={"total_max_attempts": 1},
        max_pool_connections=CONNECTIONS,
        proxies={},
        signature_version=signature,
    )
    return open_botocore().create_client(
        service, region_name=region, endpoint_url=endpoint or None, config=config, **keys
    )


@lru_cache(maxsize=1)
def open_botocore() -> Any:
    """Return botocore's session; one for all clients, since each has 6 MB of models."""
    import botocore.session

    return botocore.session.Session()
