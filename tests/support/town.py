"""A whole gateway beside a sandbox, in one process: what tests of the request path stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.app import App, build, cost_engine
from gateway.ids import new_id
from gateway.requests.call import Call, Caller
from gateway.revisions import Revision
from gateway.settings import Settings
from gateway.storage.rows import AttemptRow
from policies.policy import Policy
from policies.types import (
    Ask,
    Capacity,
    CapacityId,
    Constraints,
    Decision,
    Engine,
    Event,
    Offer,
    OfferId,
    Reason,
    View,
)
from providers.contract import ImageRequest
from providers.sandbox import Sandbox, start

TIME_SCALE = 0.02
"""Sandbox seconds per real second: an 0.8 s preview takes 16 ms."""

CALLER = Caller(key_id="key_test", team="acme")


class Town:
    """The gateway, its sandbox, and questions about both books."""

    def __init__(self, app: App, sandbox: Sandbox) -> None:
        self.app = app
        self.sandbox = sandbox

    def call(
        self,
        *,
        width: int = 512,
        height: int = 512,
        count: int = 1,
        prompt: str = "a lighthouse in the rain",
        seed: int | None = None,
        caller: Caller = CALLER,
        **constraints: object,
    ) -> Call:
        """A call as the door would make it."""
        given = msgspec.convert(constraints, Constraints, strict=False) if constraints else Constraints()
        return Call(
            id=new_id("call"),
            caller=caller,
            request=ImageRequest(prompt=prompt, width=width, height=height, count=count, seed=seed),
            constraints=given,
            arrived=self.app.clock.now(),
        )

    async def settled(self) -> None:
        """Wait until nothing is under way, wanted or not."""
        await self.app.idle()

    async def attempts(self, call: Call) -> Sequence[AttemptRow]:
        """The orders of a call."""
        return await self.app.db.attempts(call.id)

    async def costs(self) -> Mapping[str, int]:
        """What our books say we owe each account."""
        balances = await self.app.db.balances()
        return {row.party: row.posted for row in balances if row.book == "cost" and row.posted}

    async def held(self) -> int:
        """What is still set aside in either book."""
        return sum(row.held for row in await self.app.db.balances())

    async def charged(self, team: str = "acme") -> int:
        """What a team owes."""
        balances = await self.app.db.balances()
        return sum(row.posted for row in balances if row.book == "charge" and row.party == team)

    def limits_broken(self, account: str, seller: str | None = None) -> int:
        """How often orders at a sandbox account broke a limit we had been told of."""
        stats = msgspec.convert(self.sandbox.stats(), dict[str, dict[str, dict[str, object]]])
        return int(str(stats[seller or account][account]["limit_violations"]))

    def invoiced(self) -> Mapping[str, int]:
        """What the sandbox says each account owes: its own book."""
        accounts = self.sandbox.invoice()["by_account"].values()
        return {account: total for books in accounts for account, total in books.items() if total}

    async def assert_books_agree(self) -> None:
        """Our ledger and the sandbox's invoice, to the nano-dollar, with nothing left aside and no broken promise."""
        await self.settled()
        assert await self.costs() == self.invoiced()
        assert await self.held() == 0
        assert await self.app.db.audit() == []


SELLERS = ("fal", "together")


def settings(folder: Path, sandbox_url: str, sellers: Sequence[str] = SELLERS, **changes: object) -> Settings:
    """Sandbox accounts of some sellers, and a state folder of their own."""
    accounts = _accounts(sandbox_url)
    return Settings.model_validate(
        {
            "accounts": {seller: accounts[seller] for seller in sellers},
            "database": {"durability": "process"},
            "state": folder,
            "port": 0,
            "orders": {"timeout": "10s", "least_patience": "8s", "linger": "200ms", "drain": "5s"},
            "recovery": {"every": "60s", "unknown_after": "500ms"},
        }
        | changes
    )


def _accounts(sandbox_url: str) -> Mapping[str, Mapping[str, object]]:
    """Every seller's account at the sandbox, asked eagerly because its time runs fast."""
    return {
        "fal": {
            "kind": "fal",
            "key": "sandbox-fal",
            "base_url": f"{sandbox_url}/fal",
            "concurrency": 10,
            "options": {"poll_first": 0.01, "poll_max": 0.05},
        },
        "together": {
            "kind": "together",
            "key": "sandbox-together",
            "base_url": f"{sandbox_url}/together",
            "rate": 20,
            "burst": 20,
        },
        "replicate": {
            "kind": "replicate",
            "key": "sandbox-replicate",
            "base_url": f"{sandbox_url}/replicate",
            "rate": 10,
            "burst": 20,
            "options": {"poll_first": 0.01, "poll_max": 0.05},
        },
    }


def single_minded(revision: Revision) -> Engine:
    """The gateway's engine without second orders: on a busy machine they would come between a test and its count."""
    hedging = msgspec.structs.replace(revision.policy.hedging, enabled=False)
    return cost_engine(
        msgspec.structs.replace(revision, policy=msgspec.structs.replace(revision.policy, hedging=hedging))
    )


@asynccontextmanager
async def town(
    folder: Path,
    engine: Callable[[Revision], Engine] = single_minded,
    sellers: Sequence[str] = SELLERS,
    **changes: object,
) -> AsyncIterator[Town]:
    """A running gateway over a running sandbox; both are gone afterwards."""
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        app = await build(settings(folder, sandbox.url, sellers, **changes), engine=engine)
        await app.start()
        try:
            yield Town(app, sandbox)
        finally:
            await app.stop()


Step = Callable[[Decision, float], Decision]


class ScriptedEngine:
    """Answers by script, to show that the loop obeys any engine: each entry makes the next decision."""

    base: Engine

    def __init__(self, script: Sequence[Step | None]) -> None:
        self.script = list(script)
        self.reasons: list[Reason] = []

    def over(self, revision: Revision) -> Engine:
        """This engine, with the gateway's own beneath it."""
        self.base = cost_engine(revision)
        return self

    def decide(self, ask: Ask, view: View, now: float, reason: Reason) -> Decision:
        """The scripted move, over the real engine's candidates."""
        self.reasons.append(reason)
        real = self.base.decide(ask, view, now, reason)
        if not self.script:
            return real
        step = self.script.pop(0)
        return real if step is None else step(real, now)

    def observe(self, event: Event, now: float) -> None:
        """As the real one."""
        self.base.observe(event, now)

    def tick(self, view: View, now: float) -> None:
        """As the real one."""
        self.base.tick(view, now)

    def room(self, capacity: str, in_flight: int, now: float, spare: float = 0.0) -> float:
        """As the real one."""
        return self.base.room(capacity, in_flight, now, spare)

    def under(
        self, policy: Policy, capacities: Mapping[CapacityId, Capacity], offers: Mapping[OfferId, Offer]
    ) -> Engine:
        """This one, over the real one under another revision."""
        self.base = self.base.under(policy, capacities, offers)
        return self

    def beside(self, policy: Policy) -> Engine:
        """As the real one."""
        return self.base.beside(policy)
