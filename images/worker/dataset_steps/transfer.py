"""Small objects, many at once: by obstore, which needs a fraction of boto3's time for each.

It is the same server as boto3's, asked with the same credentials. What fails here, for any reason,
is left to boto3 and DVC, whose errors say why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import obstore
from botocore.credentials import Credentials
from obstore.store import S3Store

from dataset_steps.configuration import CONNECT, READ

if TYPE_CHECKING:
    from obstore import Bytes
    from obstore.store import ClientConfig, S3Credential

SMALL = 2**20  # bytes; longer objects are streamed, and not held in memory
AT_ONCE = 64  # requests
MOST_FAILURES = 20  # from then on nothing more is tried here
RETRIES = 2  # boto3 tries again, and for longer
# botocore hands out temporary credentials that are valid for ten minutes at least.
FRESH = timedelta(minutes=10)
WHOLE = timedelta(minutes=2)  # for one small object, over a slow line and with others beside it


class FastStore:
    """One bucket, as obstore sees it. Each request returns None where it fails."""

    def __init__(self, store: S3Store) -> None:
        self.store = store
        self.failures = 0

    def put(self, key: str, content: bytes) -> str | None:
        """Store the bytes and return the entity tag that the server gives them."""
        done = self.ask(obstore.put, key, content, use_multipart=False)
        return trim(done["e_tag"]) if done else None

    def head(self, key: str) -> tuple[str | None, int] | None:
        """Return the entity tag and the size of an object, in bytes."""
        found = self.ask(obstore.head, key)
        return (trim(found["e_tag"]), found["size"]) if found else None

    def get(self, key: str) -> FastObject | None:
        """Return an object, whose bytes are not read yet."""
        found = self.ask(obstore.get, key)
        return FastObject(self, found) if found else None

    def ask(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return what the request returns, or None where it fails."""
        return self.attempt(request, self.store, *arguments, **options)

    def attempt(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return what the work returns, or None where it fails, or too much has failed before."""
        if self.failures >= MOST_FAILURES:
            return None
        try:
            return work(*arguments, **options)
        except FileNotFoundError:  # the server has answered
            return None
        except Exception:  # what is wrong is for boto3 to find out
            self.failures += 1
            return None


class FastObject:
    """An object on its way: its size is known, its bytes are not read yet."""

    def __init__(self, store: FastStore, found: Any) -> None:
        self.store, self.found = store, found

    @property
    def size(self) -> int:
        return int(self.found.meta["size"])

    def read(self) -> Bytes | None:
        """Return the object's bytes, or None where the connection breaks."""
        content: Bytes | None = self.store.attempt(self.found.bytes)
        return content


def trim(tag: str | None) -> str | None:
    """Return an entity tag without its quotes."""
    return tag.strip('"') if tag else None


def open_store(client: Any, bucket: str, options: Mapping[str, Any]) -> FastStore | None:
    """Return the bucket as boto3's client sees it, or None where obstore can't do the same.

    `options` are those of DVC's file system: encryption and ACLs are left to boto3.
    """
    if options.get("s3_additional_kwargs"):
        return None
    try:
        credentials = find_credentials(options)
        return build_store(client, bucket, options, credentials) if credentials else None
    except Exception:  # what is wrong is for boto3 to find out
        return None


def build_store(
    client: Any, bucket: str, options: Mapping[str, Any], credentials: Credentials
) -> FastStore:
    """Return the bucket as boto3's client sees it."""
    url, style = find_address(client.meta.endpoint_url, bucket)
    store = S3Store(
        bucket,
        endpoint=url,
        aws_endpoint_url_s3=url,  # obstore reads the environment, too: an option of ours wins
        region=client.meta.region_name,
        virtual_hosted_style_request=style,
        client_options=client_options(url, options.get("client_kwargs", {}).get("verify")),
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=READ)},
        credential_provider=provide(credentials),
    )
    return FastStore(store)


def find_credentials(options: Mapping[str, Any]) -> Credentials | None:
    """Return the remote's own credentials, or those that boto3 has found, if any."""
    if "key" in options:
        return Credentials(options["key"], options["secret"], options.get("token"))
    session = boto3.DEFAULT_SESSION
    return session.get_credentials() if session else None


def provide(credentials: Credentials) -> Callable[[], S3Credential]:
    """Return a function that tells obstore the credentials; they may change with time."""

    def tell() -> S3Credential:
        now = credentials.get_frozen_credentials()
        return {
            "access_key_id": str(now.access_key),
            "secret_access_key": str(now.secret_key),
            "token": now.token,
            "expires_at": datetime.now(UTC) + FRESH,
        }

    return tell


def find_address(endpoint: str, bucket: str) -> tuple[str, bool]:
    """Return the URL that obstore sends requests to, and whether the bucket is a part of it.

    As boto3 does it: AWS has a host for each bucket, except where the certificate would not fit.
    """
    parts = urlsplit(endpoint)
    of_aws = (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if not of_aws or "." in bucket:
        return endpoint, False
    return parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl(), True


def client_options(url: str, verify: str | bool | None) -> ClientConfig:
    """Return the options of a connection: its timeouts, and the certificates that it trusts."""
    options: ClientConfig = {
        "allow_http": url.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT),
        "read_timeout": timedelta(seconds=READ),
        "timeout": WHOLE,
    }
    if verify is None:
        verify = os.environ.get("AWS_CA_BUNDLE")
    if verify is False:
        options["allow_invalid_certificates"] = True
    elif isinstance(verify, str):
        options["root_certificate"] = Path(verify).read_bytes()
    return options
