"""What an apply would do: what differs from kind, what is made in AWS, what an attestation says.

Nothing here needs an account, credentials or a network, and nothing is changed but files in the
environment's own folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from eks import (
    attestation,
    bucket,
    cluster,
    difference,
    disks,
    filesystem,
    identity,
    registry,
    release,
    rendering,
    repositories,
    tables,
    validation,
)
from eks.difference import Difference
from eks.environment import Environment
from eks.validation import Verdict
from lab.cluster import tools
from lab.config import Config
from lab.errors import PromotionError
from lab.progress import Report, phase
from lab.wait import together

WIDTH = 160  # where no terminal says how wide it is
# In the order in which they are made.
MADE = (bucket, registry, cluster, filesystem, disks, identity, repositories, release)


@dataclass(frozen=True)
class Promotion:
    """What would be promoted, held against what kind runs and what Kubernetes takes."""

    judged: tuple[tuple[Difference, str | None], ...]  # with the reason why it may be
    verdict: Verdict

    @property
    def refused(self) -> list[Difference]:
        """The differences that nothing allows."""
        return [row for row, reason in self.judged if reason is None]

    def check(self) -> None:
        """Raises PromotionError for what Kubernetes or promotion.yaml does not take."""
        if self.verdict.refused:
            raise PromotionError(
                listed("Kubernetes would refuse", self.verdict.refused), "correct these files"
            )
        if rows := self.refused:
            names = [f"{row.object} {row.field}" for row in rows]
            raise PromotionError(
                listed(
                    f"EKS differs from kind in what {difference.PROMOTION} does not allow", names
                ),
                f"make both the same, or add an entry with its reason to {difference.PROMOTION}",
            )


def listed(what: str, names: Sequence[str]) -> str:
    """A message with its first ten lines."""
    more = [f"and {len(names) - 10} more"] if len(names) > 10 else []
    return "\n    ".join([f"{what}:", *names[:10], *more])


def compare(environment: Environment, config: Config, folder: Path) -> Promotion:
    """Both renderings, made side by side in `folder`, and what is to be said of them.

    Raises MachineError where kubectl, helm or the chart can't be had, LabError when something
    can't be rendered.
    """
    together(*(partial(tools.find, name) for name in ("kubectl", "helm")))
    with ThreadPoolExecutor(2) as pool:
        kind = pool.submit(rendering.on_kind, config, folder / "kind")
        eks = pool.submit(rendering.on_eks, environment, config, folder / "eks")
        one, other = kind.result().objects(), eks.result().objects()
    allowed = difference.allowed(config.tree / difference.PROMOTION)
    judged = difference.judge(difference.rows(one, other), allowed, environment.options)
    reasons = [None, *(entry.why for entry in allowed)]  # in this order a person reads them
    ordered = sorted(judged, key=lambda pair: reasons.index(pair[1]))
    return Promotion(tuple(ordered), validation.judge(other, environment.kubernetes))


def gate(environment: Environment, config: Config, folder: Path) -> None:
    """Returns when this may be promoted: an attestation covers it, and each difference is allowed.

    Raises PromotionError and what `compare` raises.
    """
    attestation.check(config, signer(environment, config))
    compare(environment, config, folder).check()


def signer(environment: Environment, config: Config) -> Path | None:
    """The public key that an attestation must be signed with."""
    return config.tree / environment.attestation_key if environment.attestation_key else None


# --- What a person reads ------------------------------------------------------------------------


def show(
    environment: Environment, config: Config, folder: Path, report: Report = phase
) -> Promotion:
    """The whole plan is printed. Raises PromotionError when it could not be applied.

    A missing attestation is no failure here: a person plans before everything was tested.
    """
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = WIDTH
    out.print(introduced(environment))
    with report("Render and validate what kind and EKS get; compare"):
        found = compare(environment, config, folder)
    out.print(validated(found.verdict, environment))
    out.print(tables.compared(found.judged))
    out.print(tables.made(row for step in MADE for row in step.plan(environment)))
    out.print(attested(environment, config))
    found.check()
    return found


def introduced(environment: Environment) -> Text:
    options = ", ".join(environment.options) or "none"
    return Text.assemble(
        ("Plan for ", ""),
        (environment.name, "bold"),
        f": account {environment.account}, {environment.region}, cluster {environment.cluster}, "
        f"DAGs of {environment.branch}, options: {options}",
    )


def validated(verdict: Verdict, environment: Environment) -> Text:
    """How many objects are valid, which are not, and which nobody here can judge."""
    lines = [(f"\n{verdict.valid} objects are valid for Kubernetes {environment.kubernetes}\n", "")]
    lines += [(f"  refused: {line}\n", "red") for line in verdict.refused]
    if verdict.unknown:
        lines.append((f"  not validated, custom resources: {', '.join(verdict.unknown)}\n", ""))
    return Text.assemble(*lines)


def attested(environment: Environment, config: Config) -> Text:
    """Whether this checkout was tested on kind, and what to do next."""
    again = f"nox -s eks -- apply -e {environment.name}"
    try:
        found = attestation.check(config, signer(environment, config))
    except PromotionError as error:
        style, said = "yellow", f"no: {error.what}"
        again = f"{error.fix}; then: {again}"
    else:
        style, said = "green", str(found)
    return Text.assemble(
        ("Attested  ", "bold"), (f"{said}\n", style), ("Next      ", "bold"), again
    )
