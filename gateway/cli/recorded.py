"""What a gateway recorded, as the lines of a trace: from its decisions and attempts, without words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from gateway.cli.shell import Stop, open_records, run_async
from gateway.cli.trace_file import DoneLine, Line
from gateway.settings import Settings
from gateway.storage.activity import RecordedCall
from policies.money import to_usd
from policies.policy import Policy
from policies.types import Ask

_ask = msgspec.json.Decoder(Ask).decode


def recorded_lines(settings: Settings, policy: Policy, days: float) -> list[Line]:
    """The calls of the last `days`; stops when there is none.

    Terms that are those of the policy in force are left to the policy, so that another one may say otherwise.
    """
    lines = run_async(read_lines(settings, policy, days))
    if not lines:
        raise Stop(f"no call was recorded in the last {days:g} days; --days looks further back", code=1)
    return lines


async def read_lines(settings: Settings, policy: Policy, days: float) -> list[Line]:
    """The calls of the last `days`, as far as they are recorded."""
    db = open_records(settings)
    since = datetime.now(UTC) - timedelta(days=days)
    lines: list[Line] = []
    after: str | None = ""
    try:
        while after is not None:
            calls, after = await db.recorded_calls(after, since)
            lines += [line for call in calls for line in _line(call, policy)]
    finally:
        await db.aclose()
    return lines


def _line(call: RecordedCall, policy: Policy) -> Iterator[Line]:
    if not call.parts:
        return
    asks = {part: _ask(found.ask) for part, found in call.parts.items()}
    first = asks[min(asks)]
    count = sum(ask.request.count for ask in asks.values())
    request = first.request
    yield Line(
        at=call.at.timestamp(),
        team=call.team,
        operation=request.operation,
        inputs=tuple(f"{width}x{height}" for width, height in request.references),
        ask=msgspec.Raw(msgspec.json.encode(_body(first, count, policy))),
        done=_done(call, count),
    )


def _body(ask: Ask, count: int, policy: Policy) -> dict[str, object]:
    """The generation body that asks for the same."""
    request, wishes = ask.request, ask.constraints
    body: dict[str, object] = {"intent": ask.intent, "size": f"{request.width}x{request.height}", "n": count}
    if request.steps is not None:
        body["steps"] = request.steps
    if wishes.models is not None and len(wishes.models) == 1:
        body["model"] = next(iter(wishes.models))
    if wishes.prefer != "value":
        body["model"] = f"{body.get('model', 'auto')}:{wishes.prefer}"
    sellers = {"only": sorted(wishes.only or ()), "ignore": sorted(wishes.ignore), "order": list(wishes.order)}
    if any(sellers.values()):
        body["providers"] = {name: names for name, names in sellers.items() if names}
    intent = policy.intents.get(ask.intent)
    if intent is not None and wishes.deadline != intent.deadline:
        body["deadline_ms"] = round(wishes.deadline * 1000)
    if wishes.ceiling is not None and (intent is None or wishes.ceiling != intent.ceiling):
        body["max_cost"] = float(to_usd(wishes.ceiling * count))
    return body


def _done(call: RecordedCall, count: int) -> DoneLine:
    came = [part for part in call.parts.values() if part.delivered]
    whole = sum(part.delivered for part in came) >= count
    ended = max((part.ended for part in came if part.ended is not None), default=None)
    return DoneLine(
        state="delivered" if whole else "failed",
        offer=came[0].offer if came else None,
        nano_usd=None if call.open else call.cost,
        seconds=(ended - call.at).total_seconds() if whole and ended is not None else None,
    )
