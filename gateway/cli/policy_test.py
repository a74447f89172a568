"""`pixelgate policy test`: runs the examples that policy files carry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from gateway.cli.offline import Work, weigh
from gateway.cli.policy_lint import policies_in_force, without_policy
from gateway.cli.shell import HERE, Json, Where, print_json, say
from gateway.errors import GatewayError
from gateway.requests.quoting import Weighed
from gateway.revisions import Revision, faults_of_policy
from gateway.settings import Settings
from gateway.yaml_files import BadFile, Document, read
from policies.engine import CostEngine
from policies.policy_file.examples import ExampleFile, MarketFile
from policies.policy_file.schema import PolicyFile, compile_policy
from policies.types import Event, Offer, Submit

_FOR_LONG_S = 3_600.0
_NOW = 0.0


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of an example."""

    file: str
    line: int
    example: str
    ok: bool
    faults: tuple[str, ...] = ()
    """Where the policy does something else than expected; what it does instead."""


def examples(*files: Path, json: Json = False, where: Where = HERE) -> int:
    """Run the examples of policies: whether what draws, or is rejected, is what each of them expects.

    Exit codes: 0 every example holds; 1 one does not; 2 bad usage or a file that cannot be read.

    Parameters
    ----------
    files
        Policy files; the policy in force when left out.
    """
    settings = where.settings()
    base = without_policy(settings)
    outcomes = [each for path in files or policies_in_force(settings) for each in outcomes_of(path, settings, base)]
    failed = sum(not outcome.ok for outcome in outcomes)
    if json:
        print_json({"examples": outcomes, "failed": failed})
    else:
        for outcome in outcomes:
            print(f"{'ok  ' if outcome.ok else 'BAD '} {outcome.file}:{outcome.line}: {outcome.example}")
            for fault in outcome.faults:
                print(f"     {fault}")
        say(f"{len(outcomes) - failed} of {len(outcomes)} examples hold")
    return 1 if failed else 0


def outcomes_of(path: Path, settings: Settings, base: Revision) -> Sequence[Outcome]:
    """What becomes of each example of a policy file; raises `BadFile`."""
    return outcomes_in(read(path), settings, base)


def outcomes_in(document: Document, settings: Settings, base: Revision) -> Sequence[Outcome]:
    """The same for a policy that was read already."""
    file = document.parse(PolicyFile)
    if faults := list(faults_of_policy(document, file, settings, base.catalog)):
        raise BadFile(faults)
    revision = replace(base, policy=compile_policy(file))
    return [_outcome(document, at, example, revision) for at, example in enumerate(file.examples)]


def _outcome(document: Document, at: int, example: ExampleFile, revision: Revision) -> Outcome:
    try:
        faults = tuple(faults_of_example(example, revision))
    except GatewayError as error:  # the request itself is refused, before any offer is looked at
        faults = (f"the request is refused: {error.message}",)
    line = document.fault(("examples", at), "").line
    return Outcome(file=document.path, line=line, example=example.example, ok=not faults, faults=faults)


def faults_of_example(example: ExampleFile, revision: Revision) -> list[str]:
    """Every expectation that does not hold, and what is so instead; raises `GatewayError` for a bad request."""
    given, expect = example.given, example.expect
    weighed = weigh(
        revision,
        given.body(),
        team=given.team,
        key=given.key,
        at=None if given.at is None else given.at.replace(tzinfo=revision.policy.rules.zone),
        work=None if given.operation == "generate" else Work(operation=given.operation, references=1),
        prepare=lambda engine: in_market(engine, example.market, revision),
    ).weighed
    move = weighed.decision.move
    chosen = move.candidate.offer if isinstance(move, Submit) else None
    found = []
    if example.shows is not None and example.shows not in weighed.ask.constraints.rules:
        about = ", ".join(weighed.ask.constraints.rules) or "none"
        found.append(f"rule '{example.shows}' is not about this call; rules that are: {about}")
    drawn = "nobody" if chosen is None else chosen.id
    for name, wanted, is_so in (
        ("offer", expect.offer, _is_offer),
        ("provider", expect.provider, _is_provider),
        ("model", expect.model, _is_model),
    ):
        if wanted is not None and not is_so(chosen, wanted):
            found.append(f"expected {name} {wanted}, but {drawn} draws{_why(weighed, wanted)}")
    for name, code in (expect.rejected or {}).items():
        found += _not_rejected(weighed, name, code)
    return found


def in_market(engine: CostEngine, market: MarketFile, revision: Revision) -> None:
    """Tell an engine of a market what an example says of it."""
    for offer in revision.catalog.offers.values():
        here = {offer.account, offer.kind}
        if here & set(market.down or ()):
            engine.observe(Event(kind="misconfigured", offer=offer.id, pixels=1), _NOW)
        if here & set(market.full or ()):
            full = Event(kind="throttled", offer=offer.id, pixels=1, in_flight=1, retry_after=_FOR_LONG_S)
            engine.observe(full, _NOW)


def _is_offer(chosen: Offer | None, name: str) -> bool:
    return name == ("none" if chosen is None else chosen.id)


def _is_provider(chosen: Offer | None, name: str) -> bool:
    return chosen is not None and name in (chosen.account, chosen.kind)


def _is_model(chosen: Offer | None, name: str) -> bool:
    return chosen is not None and name == chosen.model


def _why(weighed: Weighed, name: str) -> str:
    """What stands in the way of what was expected."""
    reasons = [each.reason for each in weighed.decision.rejected if _is_named(each.offer, name)]
    return f"; {reasons[0]}" if reasons else ""


def _not_rejected(weighed: Weighed, name: str, code: str) -> list[str]:
    """That something of this name may serve all the same, or is rejected by other gates only."""
    ready = [each.offer.id for each in weighed.decision.ranked if _is_named(each.offer.id, name)]
    if ready:
        return [f"expected {name} to be rejected ({code}), but {ready[0]} may serve"]
    codes = {each.code: each.reason for each in weighed.decision.rejected if _is_named(each.offer, name)}
    if code in codes:
        return []
    other = "; ".join(f"{gate}: {reason}" for gate, reason in codes.items()) or "nothing is sold under that name"
    return [f"expected {name} to be rejected by {code}, but {other}"]


def _is_named(offer: str, name: str) -> bool:
    account, _, what = offer.partition(":")
    return name in (offer, account, what.partition("/")[0])
