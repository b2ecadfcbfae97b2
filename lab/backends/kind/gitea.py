"""Gitea, the git server on a cluster: the accounts, repositories and rights of the embedded one.

`prepare` looks before it writes, so a second call writes nothing. It may be killed anywhere: what
it leaves is never taken for finished work, and the next call completes it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
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
from lab.wait import NotYet

SECONDS = 30
BRANCH = "main"
ROBOTS = (STEPS, READER)
TOKEN = "mlops-lab"  # noqa: S105  the name of a token
SETUP = "mlops-lab-setup-"  # begins the names of the tokens that give the owner its password
RESET = "`lab down --purge` and `lab up` make new passwords"
LOGS = "lab logs gitea"

# Units that a lab does not use: what is not there needs no guarding.
UNUSED = ("issues", "wiki", "pull_requests", "projects", "releases", "packages", "actions")
REPOSITORY = {"private": True, "default_branch": BRANCH} | {f"has_{unit}": False for unit in UNUSED}
# Whoever may write may push, but nobody replaces or deletes what was pushed, not even the owner.
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
    """Who is told of each push: an address that Gitea reaches, and the secret that it bears.

    The secret goes into a header that Gitea keeps encrypted. A webhook's own secret, by which Gitea
    would sign, is in its database as it is.
    """

    url: str
    secret: str = field(repr=False)

    def webhook(self) -> dict[str, object]:
        """The webhook, in the words of Gitea's API."""
        return {
            "active": True,
            "events": ["push"],
            "branch_filter": "",
            "authorization_header": f"Bearer {self.secret}",
            "config": {"url": self.url, "content_type": "json"},
        }


class Bearer(AuthBase):
    """Lets the holder of a token in."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"token {self.token}"
        return request


@dataclass(frozen=True)
class Api:
    """Gitea's API as one account meets it."""

    url: str
    account: str
    auth: AuthBase = field(repr=False)

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        """Gitea's answer, whatever it is. Raises ServiceError when there is none."""
        try:
            with requests.Session() as session:
                session.trust_env = False  # neither a proxy nor somebody's .netrc
                return session.request(
                    method, f"{self.url}/api/v1/{path}", json=body, auth=self.auth, timeout=SECONDS
                )
        except requests.RequestException as error:
            raise ServiceError(f"Gitea does not answer: {error}", LOGS) from error

    def find(self, path: str) -> Any:
        """What is there, or None. Raises AccessError and ServiceError."""
        response = self.ask("GET", path)
        return None if response.status_code == 404 else self.content(response)

    def get(self, path: str) -> Any:
        """What is there. Raises AccessError and ServiceError."""
        return self.content(self.ask("GET", path))

    def change(self, method: str, path: str, body: object = None) -> Any:
        """What Gitea answers to a change that it made. Raises AccessError and ServiceError."""
        return self.content(self.ask(method, path, body))

    def admitted(self, path: str) -> bool:
        """Whether Gitea lets the account see what is there. Raises ServiceError."""
        return self.seen(path) is not None

    def seen(self, path: str) -> Any:
        """What is there, or None when the account may not see it. Raises ServiceError."""
        response = self.ask("GET", path)
        return None if response.status_code in {401, 403, 404} else self.content(response)

    def content(self, response: requests.Response) -> Any:
        if response.ok:
            return response.json() if response.content else None
        # No header and no body that was sent: they hold the passwords.
        asked = f"{response.request.method} {response.request.path_url}"
        if response.status_code in {401, 403}:
            what = f"Gitea refused the account {self.account!r} ({response.status_code}, {asked})"
            raise AccessError(f"{what}: {reason(response)}", RESET)
        raise ServiceError(
            f"Gitea answered {response.status_code} to {asked}: {reason(response)}", LOGS
        )


def reason(response: requests.Response) -> str:
    """What Gitea says of a refusal."""
    try:
        return str(response.json()["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return response.reason


def healthy(url: str) -> None:
    """Raises NotYet until Gitea serves."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            code = session.get(f"{url}/api/healthz", timeout=5).status_code
    except requests.RequestException as error:
        raise NotYet(f"/api/healthz does not answer: {error}") from error
    if code != 200:
        raise NotYet(f"/api/healthz answers {code}")


def prepare(
    url: str,
    admin: Admin,
    password: Callable[[str], str],
    tokens: Mapping[str, str],
    listener: Listener,
    deploy_key: str,
) -> dict[str, str]:
    """Gitea has the lab's accounts and repositories; the tokens of those that are no person.

    `admin` runs Gitea's command line beside the server and returns what it printed; `password`
    says what an account's password has to be; `tokens` are those of an earlier call, and the ones
    that still work are kept; `listener` hears of each push; `deploy_key` is the public half of
    the key by which Airflow reads the other team's repository. Raises AccessError, ServiceError,
    and what `admin` raises.
    """
    owner = by_password(url, OWNER, password(OWNER))
    provide_owner(owner, admin, password(OWNER))
    for account in ROBOTS:
        provide_account(owner, account, password(account))
    for repository in REPOSITORIES:
        provide_repository(owner, repository)
    protect(owner, DATASETS)  # before anybody else may write there
    provide_deploy_key(owner, TEAM_A, deploy_key)
    for repository in REPOSITORIES:
        share(owner, repository)
        provide_webhook(owner, repository, listener)
    return {account: token(url, account, password(account), tokens) for account in ROBOTS}


def by_password(url: str, account: str, password: str) -> Api:
    return Api(url, account, HTTPBasicAuth(account, password))


def provide_owner(owner: Api, admin: Admin, password: str) -> None:
    """The owner is there, administers the server, and has its password.

    The command line would take the password as an argument, for all processes to see. So it makes
    one up, which nobody uses, and a token, by which the API sets the right one.
    """
    if not owner.admitted("user"):
        create_owner(admin)
        by_token = Api(owner.url, OWNER, Bearer(setup_token(admin)))
        body = {"source_id": 0, "login_name": OWNER, "must_change_password": False}
        by_token.change("PATCH", f"admin/users/{OWNER}", body | {"password": password})
    remove_tokens(owner, lambda name: name.startswith(SETUP))


def create_owner(admin: Admin) -> None:
    """The owner is there, with whatever password."""
    users = [line.split()[1:2] for line in admin(["admin", "user", "list"]).splitlines()]
    if [OWNER] in users:
        return
    flags = ["--admin", "--random-password", "--must-change-password=false"]
    names = ["--username", OWNER, "--email", address(OWNER)]
    try:
        admin(["admin", "user", "create", *names, *flags])
    except LabError as error:  # its output tells the password, also where it failed
        raise LabError(without_passwords(error.what), error.fix, error.log) from None


def without_passwords(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "password is" not in line)


def setup_token(admin: Admin) -> str:
    """A token that lets the owner administer the server, until `remove_tokens`."""
    name = f"{SETUP}{secrets.token_hex(8)}"  # a name can't be used twice
    flags = ["--token-name", name, "--scopes", "write:admin", "--raw"]
    printed = admin(["admin", "user", "generate-access-token", "--username", OWNER, *flags])
    if found := re.search(r"^[0-9a-f]{40}$", printed, re.MULTILINE):
        return found.group()
    raise ServiceError("Gitea's command line printed no token", LOGS)


def remove_tokens(api: Api, chosen: Callable[[str], bool]) -> None:
    """The account has no token with a chosen name."""
    path = f"users/{api.account}/tokens"
    for token in api.get(f"{path}?limit=50"):
        if chosen(token["name"]):
            api.change("DELETE", f"{path}/{token['id']}")


def provide_account(owner: Api, account: str, password: str) -> None:
    """The account is there with its password, and can make nothing of its own.

    One request sets the password and the limits: where the password is right, they are in place.
    """
    if by_password(owner.url, account, password).admitted("user"):
        return
    if owner.find(f"users/{account}") is None:
        unknown = {"password": secrets.token_urlsafe(32), "restricted": True}
        names = {"username": account, "email": address(account)}
        owner.change("POST", "admin/users", names | unknown)
    body = LIMITS | {"login_name": account, "password": password}
    owner.change("PATCH", f"admin/users/{account}", body)


def address(account: str) -> str:
    """An account must have one; no mail is ever sent."""
    return f"{account}@localhost.localdomain"


def provide_repository(owner: Api, repository: str) -> None:
    """The owner's repository is there, private, with nothing but its code; a new one is empty."""
    found = owner.find(f"repos/{repository}")
    if found is None:
        name = repository.removeprefix(f"{OWNER}/")
        body = {"name": name, "private": True, "auto_init": False, "default_branch": BRANCH}
        found = owner.change("POST", "user/repos", body)
    if not has(found, REPOSITORY):
        owner.change("PATCH", f"repos/{repository}", REPOSITORY)


def protect(owner: Api, repository: str) -> None:
    """The branch only ever grows. It need not be there yet, and its first push is not hindered."""
    path = f"repos/{repository}/branch_protections"
    found = owner.find(f"{path}/{BRANCH}")
    if found is None:
        owner.change("POST", path, RULE | {"rule_name": BRANCH})
    elif not has(found, RULE):
        owner.change("PATCH", f"{path}/{BRANCH}", RULE)


def provide_deploy_key(owner: Api, repository: str, key: str) -> None:
    """The key opens the repository by SSH, for reading; keys that somebody else added stay."""
    path, wanted = f"repos/{repository}/keys", {"title": READER, "key": key, "read_only": True}
    keys = owner.get(f"{path}?limit=50")
    ours = [one for one in keys if one["title"] == READER or one["key"] == key]
    for one in ours:
        if not has(one, wanted):
            owner.change("DELETE", f"{path}/{one['id']}")
    if not any(has(one, wanted) for one in ours):
        owner.change("POST", path, wanted)


def provide_webhook(owner: Api, repository: str, listener: Listener) -> None:
    """The listener is told of each push, once; other webhooks are left as they are."""
    path, wanted = f"repos/{repository}/hooks", listener.webhook()
    hooks = owner.get(f"{path}?limit=50")
    first, *more = [hook for hook in hooks if hook["config"]["url"] == listener.url] or [None]
    if first is None:
        owner.change("POST", path, wanted | {"type": "gitea"})
    elif not has(first, wanted):
        owner.change("PATCH", f"{path}/{first['id']}", wanted)
    for hook in more:
        owner.change("DELETE", f"{path}/{hook['id']}")


def has(found: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    return all(found.get(key) == value for key, value in wanted.items())


def share(owner: Api, repository: str) -> None:
    """Who shall read or write the repository can, and nobody else beside its owner."""
    path = f"repos/{repository}/collaborators"
    rights = {account: right(account, repository) for account in ROBOTS}
    for person in owner.get(f"{path}?limit=50"):
        if rights.get(person["login"], "none") == "none":
            owner.change("DELETE", f"{path}/{person['login']}")
    for account, wanted in rights.items():
        if owner.get(f"{path}/{account}/permission")["permission"] != wanted:
            owner.change("PUT", f"{path}/{account}", {"permission": wanted})


def right(account: str, repository: str) -> str:
    if repository in WRITE[account]:
        return "write"
    return "read" if repository in READ[account] else "none"


def fits(holder: Api) -> bool:
    """Whether a token opens what its account may read and write, and is no other account's."""
    return all(
        granted(holder.seen(f"repos/{repository}")) == right(holder.account, repository)
        for repository in REPOSITORIES
    )


def granted(found: Any) -> str:
    """The right of an account that sees this of a repository."""
    if found is None:
        return "none"
    return "write" if found["permissions"]["push"] else "read"


def token(url: str, account: str, password: str, kept: Mapping[str, str]) -> str:
    """The token by which the account gets at its repositories: the kept one where it works."""
    if account in kept and fits(Api(url, account, Bearer(kept[account]))):
        return kept[account]
    own = by_password(url, account, password)
    remove_tokens(own, lambda name: name == TOKEN)
    scope = "write:repository" if WRITE[account] else "read:repository"
    body = {"name": TOKEN, "scopes": [scope]}
    return str(own.change("POST", f"users/{account}/tokens", body)["sha1"])
