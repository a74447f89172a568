"""The promises every adapter keeps, as checks that anyone who writes an adapter can run against their seller's twin.

    case = Case(provider, twin, order)
    for promise in PROMISES:
        broken = await promise(case)        # one sentence per way in which it is broken
    broken = await check(case)              # or all at once, by name

A twin is a stand-in of the seller on loopback that speaks its wire protocol, can be told to misbehave and keeps a bill
of its own. Nothing here reaches further than the provider and the twin it is given.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from providers.contract import CancelOutcome, Cancels, Generation, Order, Provider, Resumable, Ticket, Usage
from providers.errors import (
    BadDelivery,
    ContentRefused,
    Failed,
    Misconfigured,
    NotAccepted,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    TimedOut,
    Unavailable,
)
from providers.picture import NotAPicture, complete, probe

Fault: TypeAlias = Literal[
    "429", "500", "503", "refuse", "html", "truncate", "black", "wrong_size", "wrong_count", "reset", "timeout"
]
"""How a twin misbehaves: an HTTP status instead of acceptance; a refusal of the content; and, with the work done and
billed: a web page, half a picture, a black picture, another size, another count, a broken connection; and silence."""

_BILL_S: Final = 5.0
"""Seconds within which a twin bills what it has done."""
_SILENCE_S: Final = 0.5
"""Timeout of an order that a silent twin is given."""
_MEANINGS: Final[Mapping[Fault, tuple[type[ProviderError], ...]]] = {
    "429": (Overloaded,),
    "500": (Unavailable, Failed),
    "503": (Unavailable,),
    "html": (BadDelivery, OutcomeUnknown),
    "truncate": (BadDelivery,),
    "wrong_size": (BadDelivery,),
    "wrong_count": (BadDelivery,),
    "reset": (OutcomeUnknown, BadDelivery),
}
_PROMPT_TO_KEEP: Final = "a lighthouse nobody must hear of"


class Twin(Protocol):
    """What the kit needs of a seller's stand-in."""

    @property
    def key(self) -> str:
        """The key of the account under test."""

    async def script(self, fault: Fault | None) -> None:
        """Let `fault` befall every order from now on; None: none."""

    async def submissions(self) -> int:
        """How many orders have arrived so far, accepted or not."""

    async def billed(self) -> int:
        """Nano-dollars billed so far."""

    def price(self, endpoint: str, usage: Usage) -> int:
        """Nano-dollars that the twin's own price table asks for a usage."""

    def stranger(self) -> Provider | None:
        """A connection with a key the seller does not know; None where it does not ask for keys."""


class Case(Struct, frozen=True):
    """An adapter, the twin it speaks to, and an order both understand: at least two pictures, with a seed."""

    provider: Provider
    twin: Twin
    order: Order


Promise: TypeAlias = Callable[[Case], Awaitable[list[str]]]


class Ended(Struct, frozen=True, kw_only=True):
    """How one order went, seen from outside."""

    generation: Generation | None = None
    error: ProviderError | None = None
    stray: str | None = None
    """Any other exception; an adapter raises nothing but `ProviderError`."""
    tickets: tuple[Ticket, ...] = ()
    submissions: int = 0
    billed: int = 0
    early: bool = False
    """It ended while `on_accepted` was still being awaited."""


async def check(case: Case) -> list[str]:
    """Run every promise; one sentence per breach, with the promise's name before it."""
    broken = []
    for promise in PROMISES:
        broken += [f"{promise.__name__}: {sentence}" for sentence in await promise(case)]
    return broken


async def delivers_what_was_ordered(case: Case) -> list[str]:
    """As many whole pictures as ordered, of the ordered size."""
    ended = await _place(case, None)
    if ended.generation is None:
        return [f"no pictures but {_told(ended)}"]
    asked, broken = case.order.request, []
    if len(ended.generation.images) != asked.count:
        broken.append(f"{len(ended.generation.images)} pictures instead of {asked.count}")
    for image in ended.generation.images:
        try:
            head = probe(image.data)
        except NotAPicture as error:
            broken.append(f"bytes that are {error}")
            continue
        if (head.width, head.height) != (asked.width, asked.height):
            broken.append(f"{head.width}x{head.height} instead of {asked.width}x{asked.height}")
        if not complete(image.data):
            broken.append("a picture that breaks off")
    return broken


async def usage_is_what_the_seller_bills(case: Case) -> list[str]:
    """The usage told, priced by the seller's own table, is what the seller bills."""
    ended = await _place(case, None)
    if ended.generation is None:
        return [f"no pictures but {_told(ended)}"]
    return _differs(case, ended.generation.usage, ended)


async def errors_mean_what_they_say(case: Case) -> list[str]:
    """Every misbehaviour becomes the right error, after one submission, and what it owes is what the seller bills."""
    broken = []
    for fault, kinds in _MEANINGS.items():
        ended = await _place(case, fault)
        if ended.submissions != 1:
            broken.append(f"{fault}: {ended.submissions} submissions of one order")
        if not isinstance(ended.error, kinds):
            broken.append(f"{fault} became {_told(ended)} instead of {' or '.join(kind.__name__ for kind in kinds)}")
        else:
            broken += [f"{fault}: {sentence}" for sentence in _owes_rightly(case, ended.error, ended)]
    return broken


async def refusals_are_told(case: Case) -> list[str]:
    """Refused content is `ContentRefused`, or comes flagged; either way its money is right."""
    ended = await _place(case, "refuse")
    if isinstance(ended.error, ContentRefused):
        return _owes_rightly(case, ended.error, ended)
    if ended.generation is not None and all(image.flagged for image in ended.generation.images):
        return _differs(case, ended.generation.usage, ended)
    return [f"refused content became {_told(ended)}"]


async def submits_once(case: Case) -> list[str]:
    """One submission per order, also where SDKs like to repeat in secret."""
    faults: tuple[Fault | None, ...] = (None, "429", "503", "refuse", "timeout")
    broken = []
    for fault in faults:
        ended = await _place(case, fault)
        if ended.submissions != 1:
            broken.append(f"{ended.submissions} submissions of one order ({fault or 'no fault'})")
    return broken


async def gives_up_in_time(case: Case) -> list[str]:
    """A seller that falls silent costs no more than the order's timeout, and its money is unknown."""
    clock = asyncio.get_running_loop().time
    started = clock()
    ended = await _place(case, "timeout")
    if not isinstance(ended.error, TimedOut):
        return [f"silence became {_told(ended)}"]
    broken = [] if ended.error.owed == "unknown" else [f"silence is said to owe {ended.error.owed}"]
    if clock() - started > _SILENCE_S + 1:
        broken.append(f"silence was borne for {clock() - started:.1f} s instead of {_SILENCE_S} s")
    if isinstance(case.provider, Resumable) and ended.error.ticket is None:
        broken.append("the error does not carry the ticket")
    return broken


async def tells_the_ticket_first(case: Case) -> list[str]:
    """`on_accepted` is awaited to its end before anything else happens; a resumable order always has a ticket."""
    ended = await _place(case, None)
    broken = ["it went on while `on_accepted` was being awaited"] if ended.early else []
    if len(ended.tickets) > 1:
        broken.append(f"`on_accepted` was awaited {len(ended.tickets)} times")
    if ended.generation is not None and ended.tickets and ended.generation.ticket != ended.tickets[0]:
        broken.append("the generation carries another ticket than `on_accepted` was told")
    if isinstance(case.provider, Resumable):
        silent = await _place(case, "timeout")
        broken += [] if ended.tickets and silent.tickets else ["a resumable order was not told of before waiting"]
    return broken


async def resumes_by_ticket(case: Case) -> list[str]:
    """What claims to be resumable brings the same pictures home again, with no new order and no new bill."""
    if not isinstance(case.provider, Resumable):
        return []
    first = await _place(case, None)
    if first.generation is None or not first.tickets:
        return [f"nothing to resume but {_told(first)}"]
    before = await case.twin.submissions(), await case.twin.billed()
    again = await case.provider.resume(case.order, first.tickets[0])
    broken = []
    if [image.data for image in again.images] != [image.data for image in first.generation.images]:
        broken.append("resuming brought other pictures")
    if (await case.twin.submissions(), await case.twin.billed()) != before:
        broken.append("resuming ordered or cost something")
    return broken


async def cancels_honestly(case: Case) -> list[str]:
    """What claims to cancel says `finished` of what is over, and `unbilled` only of what is never billed."""
    if not isinstance(case.provider, Cancels):
        return []
    done = await _place(case, None)
    outcome: CancelOutcome = await case.provider.cancel(done.tickets[0]) if done.tickets else "unknown"
    broken = [] if outcome == "finished" else [f"cancelling a finished order answered {outcome!r}"]
    await case.twin.script("timeout")
    before = await case.twin.billed()
    outcome = await _cancel_midway(case, case.provider)
    await case.twin.script(None)
    if outcome == "unbilled" and await case.twin.billed() != before:
        broken.append("an order said to be unbilled was billed")
    return broken


async def leaving_sends_nothing(case: Case) -> list[str]:
    """An order whose task is cancelled ends at once, as cancelled, and is not submitted again."""
    await case.twin.script("timeout")
    before = await case.twin.submissions()
    task = asyncio.create_task(case.provider.generate(_fresh(case.order, timeout=30), _ignore))
    await _until(case.twin.submissions, before + 1)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=2)
    await case.twin.script(None)
    broken = [] if done and task.cancelled() else ["a cancelled task did not end as cancelled"]
    if await case.twin.submissions() != before + 1:
        broken.append("leaving submitted the order again")
    return broken


async def strangers_are_told(case: Case) -> list[str]:
    """A key the seller does not know is `Misconfigured`, and owes nothing."""
    stranger = case.twin.stranger()
    if stranger is None:
        return []
    try:
        ended = await _place(Case(stranger, case.twin, case.order), None)
    finally:
        await stranger.aclose()
    if not isinstance(ended.error, Misconfigured):
        return [f"an unknown key became {_told(ended)}"]
    return [] if ended.error.owed == "nothing" else ["an unknown key is said to owe something"]


async def keeps_secrets(case: Case) -> list[str]:
    """Neither prompt nor key reaches a log record, at any level, or an error's text."""
    secret = replace(case, order=replace(case.order, request=replace(case.order.request, prompt=_PROMPT_TO_KEEP)))
    with _overheard() as heard:
        ends = [await _place(secret, fault) for fault in (None, "429", "refuse", "html")]
    said = {"a log record": "\n".join(heard), "an error": "\n".join(str(ended.error) for ended in ends)}
    return [
        f"the {name} appears in {where}"
        for where, text in said.items()
        for name, word in (("prompt", _PROMPT_TO_KEEP), ("key", case.twin.key))
        if word and word in text
    ]


async def closes(case: Case) -> list[str]:
    """`aclose` ends, and does so a second time. Last, for the provider is of no use afterwards."""
    for _ in range(2):
        try:
            async with asyncio.timeout(5):
                await case.provider.aclose()
        except TimeoutError:
            return ["`aclose` does not end"]
    return []


PROMISES: Final[tuple[Promise, ...]] = (
    delivers_what_was_ordered,
    usage_is_what_the_seller_bills,
    errors_mean_what_they_say,
    refusals_are_told,
    submits_once,
    gives_up_in_time,
    tells_the_ticket_first,
    resumes_by_ticket,
    cancels_honestly,
    leaving_sends_nothing,
    strangers_are_told,
    keeps_secrets,
    closes,
)

_numbers = itertools.count(1)


def _fresh(order: Order, *, timeout: float | None = None) -> Order:
    """Make an order nobody has seen, with an attempt id and a seed of its own."""
    number = next(_numbers)
    seed = (order.request.seed or 0) + number
    request = replace(order.request, seed=seed)
    return replace(order, attempt_id=f"conformance-{number}", request=request, timeout=timeout or order.timeout)


async def _place(case: Case, fault: Fault | None) -> Ended:
    """Place one order while the twin misbehaves, and watch."""
    await case.twin.script(fault)
    order = _fresh(case.order, timeout=_SILENCE_S if fault == "timeout" else None)
    submissions, billed = await case.twin.submissions(), await case.twin.billed()
    tickets: list[Ticket] = []
    telling = False
    generation: Generation | None = None
    error: ProviderError | None = None
    stray: str | None = None

    async def accept(ticket: Ticket) -> None:
        nonlocal telling
        telling = True
        tickets.append(ticket)
        await asyncio.sleep(0.02)
        telling = False

    try:
        generation = await case.provider.generate(order, accept)
    except ProviderError as caught:
        error = caught
    except Exception as caught:  # noqa: BLE001  # anything may come out of a faulty adapter; it is reported
        stray = repr(caught)
    early = telling
    await case.twin.script(None)
    if isinstance(error, (BadDelivery, OutcomeUnknown)):
        await _settled(case.twin)
    return Ended(
        generation=generation,
        error=error,
        stray=stray,
        tickets=tuple(tickets),
        submissions=await case.twin.submissions() - submissions,
        billed=await case.twin.billed() - billed,
        early=early,
    )


async def _cancel_midway(case: Case, provider: Cancels) -> CancelOutcome:
    """Cancel an order as soon as its ticket is told; whatever comes of the order itself is let go."""
    told: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()

    async def accept(ticket: Ticket) -> None:
        told.set_result(ticket)

    task = asyncio.create_task(case.provider.generate(_fresh(case.order), accept))
    try:
        async with asyncio.timeout(case.order.timeout):
            outcome = await provider.cancel(await told)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await _settled(case.twin)
    return outcome


async def _settled(twin: Twin) -> None:
    """Wait until the twin's bill has stopped growing for a moment."""
    clock = asyncio.get_running_loop().time
    until, last = clock() + _BILL_S, -1
    while clock() < until:
        now = await twin.billed()
        if now == last:
            return
        last = now
        await asyncio.sleep(0.1)


async def _until(count: Callable[[], Awaitable[int]], least: int) -> None:
    async with asyncio.timeout(_BILL_S):
        while await count() < least:  # noqa: ASYNC110  # a twin can only be asked
            await asyncio.sleep(0.01)


async def _ignore(ticket: Ticket) -> None:
    """Take note of no ticket."""


def _told(ended: Ended) -> str:
    if ended.generation is not None:
        return f"{len(ended.generation.images)} pictures"
    return f"{type(ended.error).__name__}: {ended.error}" if ended.error else str(ended.stray)


def _owes_rightly(case: Case, error: ProviderError, ended: Ended) -> list[str]:
    if error.owed == "unknown":
        known = isinstance(error, NotAccepted)
        return ["it was not accepted, so what it owes cannot be unknown"] if known else []
    if error.owed == "nothing":
        return [f"it is said to owe nothing, yet {ended.billed} nano-dollars were billed"] if ended.billed else []
    return _differs(case, error.owed, ended)


def _differs(case: Case, usage: Usage, ended: Ended) -> list[str]:
    ours = case.twin.price(case.order.endpoint, usage)
    return [] if ours == ended.billed else [f"usage is worth {ours} nano-dollars, billed were {ended.billed}"]


class _Ear(logging.Handler):
    """Keeps every log record's text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(record.getMessage())


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Hear every log record of the process, at every level."""
    root, ear = logging.getLogger(), _Ear()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(ear)
    try:
        yield ear.lines
    finally:
        root.removeHandler(ear)
        root.setLevel(level)
