"""What a plan says beyond what it makes: what production lacks, and what no apply brings."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from eks.environment import Environment

PRODUCTION = "production"  # the name of the environment that is warned


def render_advice(environment: Environment) -> Text:
    """Render the warnings, one line each, and below them what is left to the team."""
    parts: list[tuple[str, str]] = []
    if warnings := list_warnings(environment):
        parts += [("For production\n", "bold")]
        parts += [(f"  {line}\n", "yellow") for line in warnings]
    parts += [("Left to you\n", "bold")]
    parts += [(f"  {line}\n", "") for line in find_omissions(environment)]
    return Text.assemble(*parts)


def list_warnings(environment: Environment) -> list[str]:
    """List what the environment named production should have and has not."""
    return [*find_warnings(environment)] if environment.name == PRODUCTION else []


def find_warnings(environment: Environment) -> Iterator[str]:
    chosen, options = environment.choices, environment.options
    if "rds" not in options:
        yield "the database is one pod with one disk in one zone: option rds"
        yield (
            "nothing copies the database's disk: RDS makes backups; else have AWS Backup copy what"
            " has the environment's tags"
        )
    if "ingress" not in options:
        yield "no TLS: pages are reached by kubectl's port-forward alone: option ingress"
    if "oidc" not in options:
        yield "no single sign-on: everybody shares one account: option oidc"
    if environment.makes_network and not chosen.nat_per_zone:
        yield "one NAT gateway: its zone's failure cuts off the others: nat_per_zone = true"
    if not environment.attestation_key:
        yield "attestations need no signature: attestation_key"
    if environment.untested_images:
        yield "images that kind did not run are taken: untested_images"


def find_omissions(environment: Environment) -> Iterator[str]:
    """Yield what no apply brings, or brings as it is for everybody, with what it would take."""
    chosen, make_cluster = environment.choices, environment.make_cluster
    yield (
        "nodes are not scaled: install the Cluster Autoscaler or Karpenter, with an identity of its"
        " own; the groups have the tags that it reads"
    )
    if not environment.makes_network:
        yield "a gateway endpoint for S3 in the network, else all data goes through its NAT gateway"
    if make_cluster and not chosen.sizes:
        yield "sizes are those of eks/cluster.yaml: [sizes.GROUP] chooses others"
    if make_cluster and not chosen.public_access_cidrs:
        yield "the cluster's API is open to the internet, to who signs in: public_access_cidrs"
    if environment.makes_network:
        yield "the network is a new one: [vpc] names one that is there"
    yield "who applies needs a policy, and no more than that: nox -s eks -- policy"
