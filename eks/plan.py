"""The `plan` command: what differs from kind, what is made in AWS, whether the tree is attested.

It needs no account, credentials or network, and changes only files in the environment's own folder.
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
    s3_endpoint,
    tables,
    validation,
)
from eks.advice import render_advice
from eks.difference import Difference
from eks.environment import Environment
from eks.site import Row
from eks.validation import Verdict
from lab.cluster import tools
from lab.config import Config
from lab.errors import PromotionError
from lab.progress import Report, phase
from lab.wait import run_in_parallel

WIDTH = 160  # columns, where stdout is no terminal
# In the order of creation.
MADE = (bucket, registry, cluster, s3_endpoint, filesystem, disks, identity, repositories, release)


@dataclass(frozen=True)
class Promotion:
    """What would be promoted, compared with kind and validated for Kubernetes."""

    judged: tuple[tuple[Difference, str | None], ...]  # with the reason that allows it
    verdict: Verdict

    @property
    def refused(self) -> list[Difference]:
        """The differences that no entry of promotion.yaml allows."""
        return [row for row, reason in self.judged if reason is None]

    def check(self) -> None:
        """Raise PromotionError for an invalid object or a difference that is not allowed."""
        if self.verdict.refused:
            raise PromotionError(
                format_list("Kubernetes would refuse", self.verdict.refused), "correct these files"
            )
        if rows := self.refused:
            names = [f"{row.object} {row.field}" for row in rows]
            raise PromotionError(
                format_list(
                    f"EKS differs from kind in what {difference.PROMOTION} does not allow", names
                ),
                f"make both the same, or add an entry with its reason to {difference.PROMOTION}",
            )


def format_list(what: str, names: Sequence[str]) -> str:
    """Format a message that lists the first ten names, and how many more there are."""
    more = [f"and {len(names) - 10} more"] if len(names) > 10 else []
    return "\n    ".join([f"{what}:", *names[:10], *more])


def render_and_compare(environment: Environment, config: Config, folder: Path) -> Promotion:
    """Render for kind and for EKS in `folder`, in parallel; compare and validate the results.

    Raise MachineError when kubectl, helm or the chart can't be obtained, LabError when something
    can't be rendered.
    """
    run_in_parallel(*(partial(tools.find, name) for name in ("kubectl", "helm")))
    with ThreadPoolExecutor(2) as pool:
        kind = pool.submit(rendering.render_kind, config, folder / "kind")
        eks = pool.submit(rendering.render_eks, environment, config, folder / "eks")
        one, other = kind.result().objects(), eks.result().objects()
    allowed = difference.read_allowed(
        config.kit / difference.PROMOTION, config.project.name, config.project.images
    )
    judged = difference.judge_differences(
        difference.find_differences(one, other), allowed, environment.options
    )
    reasons = [None, *(entry.why for entry in allowed)]  # the order of display
    ordered = sorted(judged, key=lambda pair: reasons.index(pair[1]))
    return Promotion(tuple(ordered), validation.validate_objects(other, environment.kubernetes))


def check_promotable(environment: Environment, config: Config, folder: Path) -> None:
    """Raise PromotionError unless an attestation covers the tree and every difference is allowed.

    Raise what `render_and_compare` raises, too.
    """
    attestation.check(config, attestation.public_key_path(environment, config))
    render_and_compare(environment, config, folder).check()


# --- Output -------------------------------------------------------------------------------------


def show(
    environment: Environment, config: Config, folder: Path, report: Report = phase
) -> Promotion:
    """Print the whole plan. Raise PromotionError when it could not be applied.

    A missing attestation is no failure here: one may plan before everything is tested.
    """
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = WIDTH
    out.print(render_heading(environment))
    with report("Render and validate what kind and EKS get; compare"):
        found = render_and_compare(environment, config, folder)
    out.print(render_verdict(found.verdict, environment))
    out.print(tables.render_differences(found.judged))
    out.print(tables.render_resources(list_resources(environment, config)))
    out.print(render_advice(environment))
    out.print(render_attestation(environment, config))
    found.check()
    return found


def list_resources(environment: Environment, config: Config) -> list[Row]:
    """List what an apply would make or bring, in the order of creation."""
    plan_images = partial(registry.plan, config=config)
    plans = (plan_images if step is registry else step.plan for step in MADE)
    return [row for plan in plans for row in plan(environment)]


def render_heading(environment: Environment) -> Text:
    options = ", ".join(environment.options) or "none"
    return Text.assemble(
        ("Plan for ", ""),
        (environment.name, "bold"),
        f": account {environment.account}, {environment.region}, cluster {environment.cluster}, "
        f"DAGs of {environment.branch}, options: {options}",
    )


def render_verdict(verdict: Verdict, environment: Environment) -> Text:
    """Render how many objects are valid, which are not, and which have no schema."""
    lines = [(f"\n{verdict.valid} objects are valid for Kubernetes {environment.kubernetes}\n", "")]
    lines += [(f"  refused: {line}\n", "red") for line in verdict.refused]
    if verdict.unknown:
        lines.append((f"  not validated, custom resources: {', '.join(verdict.unknown)}\n", ""))
    return Text.assemble(*lines)


def render_attestation(environment: Environment, config: Config) -> Text:
    """Render whether this checkout was tested on kind, and what to do next."""
    again = f"nox -s eks -- apply -e {environment.name}"
    try:
        found = attestation.check(config, attestation.public_key_path(environment, config))
    except PromotionError as error:
        style, said = "yellow", f"no: {error.what}"
        again = f"{error.fix}; then: {again}"
    else:
        style, said = "green", str(found)
    return Text.assemble(
        ("Attested  ", "bold"), (f"{said}\n", style), ("Next      ", "bold"), again
    )
