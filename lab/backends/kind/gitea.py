"""Gitea, the git server on a cluster, set up like the embedded one: accounts, repositories, rights.

`prepare` checks before it writes, so a second call writes nothing. It may be killed at any point:
what it leaves is never taken for finished work, and the next call completes it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from lab.errors import AccessError, LabError, ServiceError
from lab.layout import (
    DATASETS,
    OWNER,
    READ,
    READER,
    REPOSITORIES,
    STEPS,
    TEAM_A,
    WRITE,
)

SECONDS = 30
BRANCH = "main"
ROBOTS = (STEPS, READER)
TOKEN = "mlops-lab"  # noqa: S105  the name of a token
SETUP = "mlops-lab-setup-"  # prefix of the tokens that set the owner's password
RESET = "`lab down --purge` and `lab up` make new passwords"
LOGS = "lab logs gitea"
SECRET = re.compile(r"(?<=password is )\S.*|\b[0-9a-f]{40}\b")  # in what its command line prints

# Units that a lab does not use, disabled: what is not there needs no guarding.
UNUSED = ("issues", "wiki", "pull_requests", "projects", "releases", "packages", "actions")
REPOSITORY = {"private": True, "default_branch": BRANCH} | {f"has_{unit}": False for unit in UNUSED}
# Whoever may write may push, but nobody, not even the owner, may rewrite or delete the branch.
RULE = {
    "enable_push": True,
    "enable_push_whitelist": False,
    "enable_force_push": False,
    "enable_force_push_allowlist": False,
    "require_signed_commits": False,
    "protected_file_patterns": "",
    "block_admin_merge_override": True,
}
LIMITS = {
    "source_id": 0,
    "must_change_password": False,
    "restricted": True,
    "visibility": "private",
    "admin": False,
    "active": True,
    "prohibit_login": False,
    "allow_create_organization": False,
    "max_repo_creation": 0,
}

Admin = Callable[[list[str]], str]


@dataclass(frozen=True)
class Listener:
    """The receiver of push webhooks: a URL that Gitea reaches, and a bearer secret.

    The secret is sent in a header that Gitea stores encrypted. A webhook's own secret, with which
    Gitea would sign, is stored in its database as plain text.
    """

    url: str
    secret: str = field(repr=False)

    def webhook(self) -> dict[str, object]:
        """Return the webhook's fields in Gitea's API."""
        return {
            "active": True,
            "events": ["push"],
            "branch_filter": "",
            "authorization_header": f"Bearer {self.secret}",
            "config": {"url": self.url, "content_type": "json"},
        }


class Bearer(AuthBase):
    """Authentication by a Gitea token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"token {self.token}"
        return request


@dataclass(frozen=True)
class Api:
    """Gitea's API, called as one account."""

    url: str
    account: str
    auth: AuthBase = field(repr=False)

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        """Return Gitea's response, whatever its status. Raises ServiceError when there is none."""
        try:
            with requests.Session() as session:
                session.trust_env = False  # neither a proxy nor somebody's .netrc
                return session.request(
                    method, f"{self.url}/api/v1/{path}", json=body, auth=self.auth, timeout=SECONDS
                )
        except requests.RequestException as error:
            raise ServiceError(f"Gitea does not answer: {error}", LOGS) from error

    def find(self, path: str) -> Any:
        """Return the object at `path`, or None for 404. Raises AccessError and ServiceError."""
        response = self.ask("GET", path)
        return None if response.status_code == 404 else self.parse_response(response)

    def get(self, path: str) -> Any:
        """Return the object at `path`. Raises AccessError and ServiceError."""
        return self.parse_response(self.ask("GET", path))

    def change(self, method: str, path: str, body: object = None) -> Any:
        """Make a change and return Gitea's answer. Raises AccessError and ServiceError."""
        return self.parse_response(self.ask(method, path, body))

    def is_admitted(self, path: str) -> bool:
        """Return whether the account may see the object at `path`. Raises ServiceError."""
        return self.find_visible(path) is not None

    def find_visible(self, path: str) -> Any:
        """Return the object at `path`, or None for 401, 403 and 404. Raises ServiceError."""
        response = self.ask("GET", path)
        return None if response.status_code in {401, 403, 404} else self.parse_response(response)

    def parse_response(self, response: requests.Response) -> Any:
        """Return the response's JSON, if any. Raises AccessError and ServiceError."""
        if response.ok:
            return response.json() if response.content else None
        # Without the headers and body of the request: they hold passwords.
        asked = f"{response.request.method} {response.request.path_url}"
        if response.status_code in {401, 403}:
            what = f"Gitea refused the account {self.account!r} ({response.status_code}, {asked})"
            raise AccessError(f"{what}: {refusal_message(response)}", RESET)
        raise ServiceError(
            f"Gitea answered {response.status_code} to {asked}: {refusal_message(response)}", LOGS
        )


def refusal_message(response: requests.Response) -> str:
    """Return Gitea's message about an error, else the HTTP reason."""
    try:
        return str(response.json()["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return response.reason


def prepare(
    url: str,
    admin: Admin,
    password: Callable[[str], str],
    tokens: Mapping[str, str],
    listener: Listener,
    deploy_key: str,
) -> dict[str, str]:
    """Create the lab's accounts and repositories, and return the robot accounts' tokens.

    `admin` runs Gitea's command line beside the server and returns what it printed; `password`
    returns the password that an account is to have; `tokens` are those of an earlier call, and the
    ones that still work are kept; `listener` receives a webhook for each push; `deploy_key` is the
    public half of the key with which Airflow reads the other team's repository. Raises AccessError,
    ServiceError, and what `admin` raises.
    """
    owner = api_with_password(url, OWNER, password(OWNER))
    ensure_owner(owner, admin, password(OWNER))
    for account in ROBOTS:
        ensure_account(owner, account, password(account))
    for repository in REPOSITORIES:
        ensure_repository(owner, repository)
    protect_branch(owner, DATASETS)  # before anybody else may write there
    ensure_deploy_key(owner, TEAM_A, deploy_key)
    for repository in REPOSITORIES:
        set_collaborators(owner, repository)
        ensure_webhook(owner, repository, listener)
    return {account: ensure_token(url, account, password(account), tokens) for account in ROBOTS}


def api_with_password(url: str, account: str, password: str) -> Api:
    return Api(url, account, HTTPBasicAuth(account, password))


def ensure_owner(owner: Api, admin: Admin, password: str) -> None:
    """Create the owner, an administrator, with its password, unless it can log in.

    Gitea's command line would take the password as an argument, which all processes can see. So it
    creates the account with a random password and a token, with which the API sets the right one.
    """
    if not owner.is_admitted("user"):
        create_owner(admin)
        by_token = Api(owner.url, OWNER, Bearer(create_setup_token(admin)))
        body = {"source_id": 0, "login_name": OWNER, "must_change_password": False}
        by_token.change("PATCH", f"admin/users/{OWNER}", body | {"password": password})
    delete_tokens(owner, lambda name: name.startswith(SETUP))


def create_owner(admin: Admin) -> None:
    """Create the owner with a random password, unless it exists."""
    users = [line.split()[1:2] for line in admin(["admin", "user", "list"]).splitlines()]
    if [OWNER] in users:
        return
    flags = ["--admin", "--random-password", "--must-change-password=false"]
    names = ["--username", OWNER, "--email", email_address(OWNER)]
    with hiding_secrets():
        admin(["admin", "user", "create", *names, *flags])


@contextmanager
def hiding_secrets() -> Iterator[None]:
    """Keep passwords and tokens from an error: the output of a command has them when it fails."""
    try:
        yield
    except LabError as error:
        shown = LabError(redact_secrets(error.what), error.fix, error.log)
        shown.program, shown.output = error.program, redact_secrets(error.output)
        raise shown from None


def redact_secrets(text: str) -> str:
    return SECRET.sub("…", text)


def create_setup_token(admin: Admin) -> str:
    """Create a token with which the owner administers the server, until `delete_tokens`."""
    name = f"{SETUP}{secrets.token_hex(8)}"  # a name can't be used twice
    flags = ["--token-name", name, "--scopes", "write:admin", "--raw"]
    with hiding_secrets():
        printed = admin(["admin", "user", "generate-access-token", "--username", OWNER, *flags])
    if found := re.search(r"^[0-9a-f]{40}$", printed, re.MULTILINE):
        return found.group()
    raise ServiceError("Gitea's command line printed no token", LOGS)


def delete_tokens(api: Api, chosen: Callable[[str], bool]) -> None:
    """Delete the account's tokens whose name `chosen` accepts."""
    path = f"users/{api.account}/tokens"
    for token in api.get(f"{path}?limit=50"):
        if chosen(token["name"]):
            api.change("DELETE", f"{path}/{token['id']}")


def ensure_account(owner: Api, account: str, password: str) -> None:
    """Create the account with its password and LIMITS: it can't create anything of its own.

    One request sets both the password and the limits, so if the password is right, they are set.
    """
    if api_with_password(owner.url, account, password).is_admitted("user"):
        return
    if owner.find(f"users/{account}") is None:
        unknown = {"password": secrets.token_urlsafe(32), "restricted": True}
        names = {"username": account, "email": email_address(account)}
        owner.change("POST", "admin/users", names | unknown)
    body = LIMITS | {"login_name": account, "password": password}
    owner.change("PATCH", f"admin/users/{account}", body)


def email_address(account: str) -> str:
    """Return an email address: Gitea requires one, but no mail is ever sent."""
    return f"{account}@localhost.localdomain"


def ensure_repository(owner: Api, repository: str) -> None:
    """Create the owner's repository, empty, unless it exists; make it private, with code only."""
    found = owner.find(f"repos/{repository}")
    if found is None:
        name = repository.removeprefix(f"{OWNER}/")
        body = {"name": name, "private": True, "auto_init": False, "default_branch": BRANCH}
        found = owner.change("POST", "user/repos", body)
    if not has_fields(found, REPOSITORY):
        owner.change("PATCH", f"repos/{repository}", REPOSITORY)


def protect_branch(owner: Api, repository: str) -> None:
    """Protect the branch from rewriting. It need not exist, and its first push is allowed."""
    path = f"repos/{repository}/branch_protections"
    found = owner.find(f"{path}/{BRANCH}")
    if found is None:
        owner.change("POST", path, RULE | {"rule_name": BRANCH})
    elif not has_fields(found, RULE):
        owner.change("PATCH", f"{path}/{BRANCH}", RULE)


def ensure_deploy_key(owner: Api, repository: str, key: str) -> None:
    """Add the read-only deploy key to the repository; keys that somebody else added stay."""
    path, wanted = f"repos/{repository}/keys", {"title": READER, "key": key, "read_only": True}
    keys = owner.get(f"{path}?limit=50")
    ours = [one for one in keys if one["title"] == READER or one["key"] == key]
    for one in ours:
        if not has_fields(one, wanted):
            owner.change("DELETE", f"{path}/{one['id']}")
    if not any(has_fields(one, wanted) for one in ours):
        owner.change("POST", path, wanted)


def ensure_webhook(owner: Api, repository: str, listener: Listener) -> None:
    """Create or correct the listener's webhook, and delete its duplicates; other webhooks stay."""
    path, wanted = f"repos/{repository}/hooks", listener.webhook()
    hooks = owner.get(f"{path}?limit=50")
    first, *more = [hook for hook in hooks if hook["config"]["url"] == listener.url] or [None]
    if first is None:
        owner.change("POST", path, wanted | {"type": "gitea"})
    elif not has_fields(first, wanted):
        owner.change("PATCH", f"{path}/{first['id']}", wanted)
    for hook in more:
        owner.change("DELETE", f"{path}/{hook['id']}")


def has_fields(found: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    return all(found.get(key) == value for key, value in wanted.items())


def set_collaborators(owner: Api, repository: str) -> None:
    """Set the collaborators' permissions, and remove everybody else but the owner."""
    path = f"repos/{repository}/collaborators"
    rights = {account: wanted_permission(account, repository) for account in ROBOTS}
    for person in owner.get(f"{path}?limit=50"):
        if rights.get(person["login"], "none") == "none":
            owner.change("DELETE", f"{path}/{person['login']}")
    for account, wanted in rights.items():
        if owner.get(f"{path}/{account}/permission")["permission"] != wanted:
            owner.change("PUT", f"{path}/{account}", {"permission": wanted})


def wanted_permission(account: str, repository: str) -> str:
    if repository in WRITE[account]:
        return "write"
    return "read" if repository in READ[account] else "none"


def has_wanted_permissions(holder: Api) -> bool:
    """Return whether a token has exactly its account's permissions, so is no other account's."""
    return all(
        granted_permission(holder.find_visible(f"repos/{repository}"))
        == wanted_permission(holder.account, repository)
        for repository in REPOSITORIES
    )


def granted_permission(found: Any) -> str:
    """Return the permission of the account to which Gitea shows this repository."""
    if found is None:
        return "none"
    return "write" if found["permissions"]["push"] else "read"


def ensure_token(url: str, account: str, password: str, kept: Mapping[str, str]) -> str:
    """Return the account's token: the kept one if it works, else a new one."""
    if account in kept and has_wanted_permissions(Api(url, account, Bearer(kept[account]))):
        return kept[account]
    own = api_with_password(url, account, password)
    delete_tokens(own, lambda name: name == TOKEN)
    scope = "write:repository" if WRITE[account] else "read:repository"
    body = {"name": TOKEN, "scopes": [scope]}
    return str(own.change("POST", f"users/{account}/tokens", body)["sha1"])
