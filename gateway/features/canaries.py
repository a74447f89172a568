"""Tries another policy on a part of the calls, ends it as soon as it is surely worse, puts it in force when it is not.

A command begins a canary by writing a row; every gateway on the database looks for one each second. It then serves its
share of keys and end users under both policies at once, over one engine's learning, and compares calls of a kind in
pairs. A crossed guardrail sends the next call back to the policy in force at once; what is written about it follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct

from gateway.clock import Clock
from gateway.errors import DeadlinePassed, NoCapacity, NoOffer, Undeliverable
from gateway.features.policy_history import Change, History, Moved
from gateway.requests.call import Call, Delivery
from gateway.requests.orders import Salvage, Spawn
from gateway.requests.regime import Regime
from gateway.revisions import PolicyText, Revision, load_revision
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.policies import CanaryRow, CanaryState, PolicyEvent, PolicyRevision
from gateway.yaml_files import BadFile
from policies.experiments.guardrails import Guardrails, Outcome
from policies.policy import Policy

FAILURES = (NoOffer, Undeliverable, NoCapacity, DeadlinePassed)
"""What counts as failing: a policy can do something about it."""

log = structlog.get_logger("gateway.canaries")


class Stage(Protocol):
    """Where both policies serve; the application is one."""

    settings: Settings
    revision: Revision

    def try_beside(self, canary: CanaryRow, policy: Policy) -> None:
        """Serve the canary's share of callers under its policy from now on, the others under the one in force."""

    def stop_trying(self) -> None:
        """Serve everybody under the policy in force."""


class Live(Struct, kw_only=True, eq=False):
    """A canary that runs here."""

    row: CanaryRow
    candidate: PolicyRevision
    policy: Policy
    base: str
    """The meaning of the policy it runs beside."""
    rails: Guardrails
    told: int = -1
    """Pairs at the last report."""


class Canaries:
    """Follows the canary of the database, if there is one."""

    def __init__(self, stage: Stage, *, db: Database, clock: Clock, spawn: Spawn, wrote: Callable[[], None]) -> None:
        """`wrote`: called when the policy's file was written here, so that it is read soon."""
        self._stage = stage
        self._db = db
        self._clock = clock
        self._spawn = spawn
        self._wrote = wrote
        self._history = History(db)
        self._live: Live | None = None
        self._over: dict[int, tuple[CanaryState, str]] = {}
        """Canaries that ended here, until that is written."""

    def __repr__(self) -> str:
        return f"<Canaries {self._live.rails if self._live else 'none'}>"

    @property
    def label(self) -> str:
        """Name and number of the policy on trial here; empty without one."""
        return "" if self._live is None else self._live.policy.label

    async def serve(self, regime: Regime, call: Call, salvage: Salvage | None) -> Delivery:
        """Serve a call of either side, and note how it ended."""
        try:
            delivery = await regime.pipeline.serve(call, salvage)
        except FAILURES:
            self._note(regime, call, Outcome(seconds=self._clock.now() - call.arrived, failed=True))
            raise
        cost = delivery.charge / max(len(delivery.images), 1)
        self._note(regime, call, Outcome(seconds=self._clock.now() - call.arrived, nano_usd=cost))
        return delivery

    async def look(self) -> None:
        """Begin, end and report what the database says and what was seen here."""
        running = next((row for row in await self._db.canaries() if row.state == "running"), None)
        if self._live is not None and (running is None or running.id != self._live.row.id):
            log.info("canary_ended", revision=self._live.row.revision, reason="ended by a command or another gateway")
            self._stop()
        if running is None:
            return
        if running.id in self._over:
            await self._end(running, *self._over[running.id])
        elif self._live is None:
            await self._begin(running)
        else:
            await self._go_on(self._live)

    def rebased(self) -> None:
        """Other prices or accounts are in force, or another policy."""
        live = self._live
        if live is None:
            return
        meaning = self._stage.revision.meaning
        if meaning == live.base:
            self._stage.try_beside(live.row, live.policy)
            return
        self._stop()
        if meaning != live.candidate.meaning:  # else it was promoted
            self._finish(live.row, "superseded", "another policy came into force meanwhile")

    def _note(self, regime: Regime, call: Call, outcome: Outcome) -> None:
        live = self._live
        if live is None or live.row.id != regime.canary or not call.like:
            return
        live.rails.add("canary" if regime.arm == "canary" else "control", call.like, outcome)
        crossed = live.rails.crossed
        if crossed is not None:
            self._stop()
            log.warning("canary_rolled_back", revision=live.row.revision, policy=live.policy.label, reason=crossed.why)
            self._spawn(self._report(live))
            self._finish(live.row, "rolled back", f"{crossed.guardrail}: {crossed.why}")

    async def _begin(self, row: CanaryRow) -> None:
        await self._history.refresh()
        candidate, base = self._history.revision(row.revision), self._history.revision(row.base)
        in_force = self._stage.revision
        if candidate is None or base is None or base.meaning != in_force.meaning:
            if candidate is not None and candidate.meaning == in_force.meaning:
                return  # promoted, and not yet written about
            await self._end(row, "superseded", "another policy is in force than the one it was started beside")
            return
        text = PolicyText(f"revision {candidate.seq}", candidate.content)
        try:
            revision = await asyncio.to_thread(load_revision, self._stage.settings, policy=text)
        except BadFile as error:
            await self._end(row, "aborted", str(error.faults[0]).partition("\n")[0])
            return
        terms = msgspec.structs.replace(in_force.policy.canary, share=row.share)
        self._live = Live(
            row=row, candidate=candidate, policy=revision.policy, base=base.meaning, rails=Guardrails(terms)
        )
        self._stage.try_beside(row, revision.policy)
        log.info("canary_started", revision=row.revision, policy=revision.policy.label)

    async def _go_on(self, live: Live) -> None:
        await self._report(live)
        if not live.rails.passed:
            return
        passed = f"{live.rails.pairs} calls compared, nothing crossed"
        change = Change(
            text=PolicyText(f"revision {live.candidate.seq}", live.candidate.content),
            author=live.row.author,
            source="promoted",
            message=f"canary of revision {live.candidate.seq}: {passed}",
        )
        try:
            await self._history.change(self._stage.settings, change)
        except Moved as moved:
            state, why = "superseded", str(moved)
        except (OSError, BadFile) as error:
            state, why = "passed", f"{passed}, but it could not be put in force: {error}"
        else:
            state, why = "promoted", passed
            self._wrote()
        log.info("canary_ended", revision=live.row.revision, state=state, reason=why)
        await self._end(live.row, state, why)  # type: ignore[arg-type]  # of the words above
        if state != "promoted":
            self._stop()

    async def _report(self, live: Live) -> None:
        calls = live.rails.report()
        seen = calls.control.calls + calls.canary.calls
        if seen != live.told:
            live.told = seen
            await self._db.report_canary(live.row.id, msgspec.json.encode(calls))

    def _stop(self) -> None:
        self._live = None
        self._stage.stop_trying()

    def _finish(self, row: CanaryRow, state: CanaryState, why: str) -> None:
        """Write that it is over; `look` tries again where that fails."""
        self._over[row.id] = state, why
        self._spawn(self._end(row, state, why))

    async def _end(self, row: CanaryRow, state: CanaryState, why: str) -> None:
        now = datetime.now(UTC)
        if await self._db.end_canary(row, state, why, now):
            event = PolicyEvent(at=now, actor="gateway", action=f"canary {state}", revision=row.revision, detail=why)
            await self._db.add_policy_event(event)
        self._over.pop(row.id, None)


def served(
    canaries: Canaries | None, regime: Regime, call: Call, salvage: Salvage | None
) -> Coroutine[Any, Any, Delivery]:
    """Serve a call under its regime; one that is on a side of a canary is watched."""
    if canaries is None or not regime.arm or salvage is not None:
        return regime.pipeline.serve(call, salvage)
    return canaries.serve(regime, call, salvage)
