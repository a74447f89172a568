"""Several servers of ours behind one provider account: each order goes where it would be finished first.

The pool chooses a node, counts what it has given to each, and looks after their health. It never sends an order twice:
only one that could not leave this machine, because its node is gone, is given to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NoReturn

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from providers.contract import Generation, Load, OnAccepted, Order, UsageRecord
from providers.errors import (
    BadDelivery,
    ContentRefused,
    Misconfigured,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    TimedOut,
    Unavailable,
    Unsupported,
)
from providers.selfhosted.node import Node, Work
from providers.transport import NotSent, WireError, jittered

_PROBE_S: Final = 5.0
"""Seconds a node has to say how it is."""
_AT_ONCE_S: Final = 0.005
_LOOK_AGAIN_S: Final = 0.5
"""Slots that nobody gives back come free by themselves after a while, so that those who wait look again."""
_HOUR_NS: Final = 3_600_000_000_000


class Habits(Struct, frozen=True, kw_only=True):
    """How a pool treats its nodes; all in seconds."""

    probe_every: float
    """Between two looks at each node."""
    quarantine: float
    """Without orders for a node that answered with a wrong picture."""
    wait: float
    """That an order waits for a free slot, at most."""


class Pool:
    """Our own nodes as one seller."""

    bills_nobody: Literal[True] = True

    def __init__(self, name: str, nodes: Sequence[Node], habits: Habits) -> None:
        self.name = name
        self._nodes = tuple(nodes)
        self._habits = habits
        self._loop = asyncio.get_running_loop()
        self._asked: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._waiting: list[asyncio.Future[None]] = []

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        """Draw `order` at the node that would be done first; no node gives a receipt."""
        await self._awake()
        gone: set[Node] = set()
        arrived = self._loop.time()
        while True:
            node = await self._room(order, gone, arrived + self._habits.wait)
            waited = self._loop.time() - arrived
            try:
                made = await self._draw(node, order, on_accepted)
                return made if waited < _AT_ONCE_S else replace(made, queue_s=(made.queue_s or 0.0) + waited)
            except Unavailable as error:
                if not isinstance(error.__cause__, NotSent):
                    raise
                gone.add(node)  # the order has not left this machine, so another may have it

    async def load(self) -> Mapping[str, Load]:
        """Load by node, by our own count."""
        now = self._loop.time()
        return {node.name: node.load(now) for node in self._nodes}

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Ask every node how it is and what it has loaded, and whether every model has a node."""
        found = await asyncio.gather(*(node.server.check(endpoints) for node in self._nodes))
        faults = [f"{node.name}: {fault}" for node, said in zip(self._nodes, found, strict=True) for fault in said]
        served = [node.server.models for node in self._nodes]
        missing = [name for name in endpoints if not any(models is None or name in models for models in served)]
        return faults + [f"no node serves {n}; name it at one, or in no `models` of the account" for n in missing]

    async def probe(self) -> None:
        """Ask every node how it is, once."""
        await asyncio.gather(*(self._probe(node) for node in self._nodes))

    async def aclose(self) -> None:
        """Stop looking after the nodes, and give back connections."""
        self._closed = True
        tasks = [task for task in (self._asked, self._watch, *self._looks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in self._nodes:
            await node.server.aclose()

    async def _awake(self) -> None:
        """Before the first order every node is asked; from then on every few seconds."""
        if self._asked is None:
            self._asked = asyncio.create_task(self.probe(), name=f"first probe of {self.name}")
        if not self._asked.done():
            await asyncio.shield(self._asked)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._keep_probing(), name=f"probes of {self.name}")

    async def _keep_probing(self) -> None:
        while True:
            await asyncio.sleep(jittered(self._habits.probe_every))
            await self.probe()

    async def _probe(self, node: Node) -> None:
        before = node.running()
        node.probed(await node.server.status(_PROBE_S), before)
        self._freed()

    def _look_at(self, node: Node) -> None:
        """Ask a node at once how it is: it may be gone, or it was a hiccup."""
        if self._closed:
            return
        look = asyncio.create_task(self._probe(node), name=f"look at {node.name}")
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def _room(self, order: Order, gone: set[Node], until: float) -> Node:
        """The node for an order; waits for a free slot where there is none, but not for a node to become fit."""
        while True:
            try:
                return self._best(order, gone)
            except Overloaded:
                left = until - self._loop.time()
                if left <= 0:
                    raise
            turn: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(turn)
            await asyncio.wait([turn], timeout=min(left, _LOOK_AGAIN_S))

    def _freed(self) -> None:
        """Wake those who wait for a slot."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    def _best(self, order: Order, gone: set[Node]) -> Node:
        """The fit node with a free slot where `order` would be done first; raises why there is none."""
        now = self._loop.time()
        objections = {node: node.objection(order) for node in self._nodes}
        able = [node for node, why in objections.items() if why is None]
        if not able:
            raise Unsupported("; ".join(f"{node.name} {why}" for node, why in objections.items()))
        fit = [node for node in able if node not in gone and not node.unfit(order.endpoint, now)]
        if not fit:
            raise Unavailable("; ".join(f"{node.name} {node.unfit(order.endpoint, now)}" for node in able))
        free = [node for node in fit if node.free(now) > 0]
        if not free:
            raise Overloaded(f"every slot of {' and '.join(node.name for node in fit)} is taken")
        return min(free, key=lambda node: (node.finish(order, now), node.name))

    async def _draw(self, node: Node, order: Order, on_accepted: OnAccepted) -> Generation:
        """Order at one node, and see to it that its slot is given back when its worker is done."""
        work = node.take(order, self._loop.time())
        try:
            made = await node.server.generate(order, on_accepted)
        except ProviderError as error:
            self._end(node, work, error)
        except BaseException:
            node.lose(work, self._loop.time())
            raise
        node.done(work)
        node.served(order, made.run_s or 0.0)
        if self._waiting:
            self._freed()
        return made

    def _end(self, node: Node, work: Work, error: ProviderError) -> NoReturn:
        """Note what a failure says of the node, and raise it."""
        now = self._loop.time()
        if isinstance(error, TimedOut | OutcomeUnknown):
            node.lose(work, now)
            if isinstance(error, TimedOut):
                node.failed(error.detail)
            else:
                node.gone(f"broke off ({error.detail})", dead=False)
                self._look_at(node)
            raise error
        node.done(work)
        self._freed()
        match error:
            case Unavailable() if isinstance(error.__cause__, NotSent):
                node.gone(f"cannot be reached ({error.detail})", dead=_refused(error))
            case Overloaded() | Unavailable() if error.retry_after is not None:
                node.rest(now + error.retry_after, error.detail)
            case BadDelivery():
                node.rest(now + self._habits.quarantine, error.detail)
            case Misconfigured():
                node.gone(f"refuses the key ({error.detail})", dead=False)
                # One node with another key says nothing about the account.
                raise Unavailable(f"{node.name} refuses the key", status=error.status) from error
            case Overloaded() | ContentRefused() | Unsupported():
                pass
            case _:
                node.failed(error.detail)
        raise error


def _refused(error: BaseException | None) -> bool:
    """Whether nobody listens there any more, as against nobody answering."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__
    return False


class _Line(Struct):
    attempt: str
    model: str
    gpu_seconds: float
    at: datetime
    images: int | None = None


class _Log(Struct):
    orders: list[_Line]


class MeteredPool(Pool):
    """A pool whose nodes keep a log of what they did, by our attempt: `GET /v1/usage?since=...`."""

    def __init__(self, name: str, nodes: Sequence[Node], habits: Habits, *, machine_hour: int) -> None:
        """`machine_hour` in nano-dollars."""
        super().__init__(name, nodes, habits)
        self._machine_hour = machine_hour

    async def usage(self, since: datetime, endpoints: Sequence[str]) -> Sequence[UsageRecord]:
        """Every order the nodes worked on; raises `Unavailable` while one of them does not tell."""
        logs = await asyncio.gather(*(self._log(node, since) for node in self._nodes))
        records = [
            UsageRecord(
                endpoint=node.server.endpoint(line.model),
                nano_usd=self._cost(line.gpu_seconds),
                at=line.at,
                request_id=line.attempt,
                pictures=line.images,
            )
            for node, log in zip(self._nodes, logs, strict=True)
            for line in log.orders
        ]
        return [record for record in records if record.endpoint in endpoints and record.at >= since]

    async def _log(self, node: Node, since: datetime) -> _Log:
        moment = (since.astimezone(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            answer = await node.server.fetch(f"/v1/usage?since={moment}")
            if answer.status != 200:
                raise Unavailable(f"{node.name} answers its usage with HTTP {answer.status}")
            return msgspec.json.decode(answer.body, type=_Log)
        except (TimeoutError, WireError, msgspec.MsgspecError) as error:
            raise Unavailable(f"{node.name} does not tell its usage ({type(error).__name__})") from error

    def _cost(self, seconds: float) -> int:
        """Nano-dollars of so many seconds, rounded once, half to even."""
        whole, rest = divmod(round(seconds * 1e9) * self._machine_hour, _HOUR_NS)
        return whole + (2 * rest > _HOUR_NS or (2 * rest == _HOUR_NS and whole % 2 == 1))
