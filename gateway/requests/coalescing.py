"""A request that comes twice is drawn once and charged once.

Two kinds of client ask again. One sends `Idempotency-Key`: whatever was first asked for under a key is its answer for
a day, and the call goes on when its caller leaves. The other repeats by itself after a timeout or a broken connection
and numbers its repeats (`x-stainless-retry-count`, all of OpenAI's clients): its repeat joins the call of an equal
request that is still under way, a forsaken one first. A first attempt never joins: equal requests at once are meant.
Only a promotion is one picture however often it is asked for at once: whoever presses a button twice wants one.

While nobody listens to a call, it goes on for `regain` seconds. Its caller may be back by then; a picture that is ready
before is kept and charged only when somebody comes for it. The same holds for orders that a restart found under way.

    first attempt ----> course ----> Pipeline.serve        the request's own task; nothing is added to a plain call
    repeat ---------------^  joins: waits for the same delivery
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Literal, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from gateway.clock import Clock
from gateway.errors import GatewayError, IdempotencyKeyReused, NotFound, NotReady
from gateway.ids import sibling
from gateway.requests.call import Call, Delivered, Delivery, offers_of
from gateway.requests.listeners import Listeners
from gateway.requests.orders import FoundOrder, Salvage
from gateway.storage.database import Database
from gateway.storage.rows import AttemptRow, IdempotencyRow

DAY_S = 86_400.0
"""Seconds an `Idempotency-Key` is remembered, unless pictures are kept for less."""

Cache = Literal["miss", "joined", "hit"]
"""miss: drawn for this request. joined: drawn for an earlier one that was still under way. hit: drawn before."""

Wanted: TypeAlias = "tuple[str, bytes]"
"""API key and fingerprint: what a repeat is recognised by."""

_encode = msgspec.json.Encoder(order="deterministic", enc_hook=repr).encode


class Repeat(Struct, frozen=True, kw_only=True):
    """That a request may come again, or has."""

    key: str | None = None
    """Its `Idempotency-Key`."""
    count: int = 0
    """How often the client has asked before."""
    joins: bool = False
    """Whether even a first attempt joins an equal request that is under way."""


class Served(Struct, frozen=True):
    """A delivery, and whether it was drawn for this request."""

    delivery: Delivery
    cache: Cache


class Serve(Protocol):
    """`Pipeline.serve`."""

    def __call__(self, call: Call, salvage: Salvage | None = None) -> Awaitable[Delivery]:
        """Answer a call, from what an earlier try left where there is something."""


def fingerprint(path: str, fields: Mapping[str, object], *inputs: bytes) -> bytes:
    """What a request asks for, in 16 bytes: equal for equal values, in whatever order or spelling they came.

    `inputs` are the bytes of pictures that came beside the fields.
    """
    digest = hashlib.blake2b(path.rstrip("/").encode(), digest_size=16)
    digest.update(_encode(fields))
    for data in inputs:
        digest.update(hashlib.blake2b(data, digest_size=16).digest())
    return digest.digest()


class Course:
    """A call under way that may be asked for again: who serves it, and how many listen."""

    def __init__(self, call: Call, maker: asyncio.Task[object], *, keyed: bool) -> None:
        self.call = call
        self.maker = maker
        self.keyed = keyed
        self.listeners = 1
        self.given_up = False
        self.timer: asyncio.TimerHandle | None = None
        self._answer: asyncio.Future[Delivery] | None = None

    def __repr__(self) -> str:
        return f"<Course of {self.call.id}, {self.listeners} listen>"

    def answer(self) -> asyncio.Future[Delivery]:
        """What all who joined wait for."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._answer.add_done_callback(_seen)
        return self._answer

    def give_up(self) -> None:
        """Nobody came back."""
        self.given_up = True
        self.maker.cancel()

    def end(self, outcome: Delivery | BaseException) -> None:
        """Tell all who joined."""
        if self._answer is None or self._answer.done():
            return
        if isinstance(outcome, Delivery):
            self._answer.set_result(outcome)
        elif isinstance(outcome, Exception):
            self._answer.set_exception(outcome)
        else:
            self._answer.cancel()


class Coalescing:
    """Recognises requests that come again, and gives all of them one delivery."""

    def __init__(
        self,
        serve: Serve,
        *,
        db: Database,
        read: Callable[[str], Awaitable[bytes | None]],
        clock: Clock,
        listeners: Listeners,
        regain: float,
        keep: float,
    ) -> None:
        """`read` brings a kept picture's bytes; `regain` and `keep` (of pictures) are in seconds."""
        self._serve = serve
        self._db = db
        self._read = read
        self._clock = clock
        self._listeners = listeners
        self._regain = regain
        self.adopt(keep)
        self._began = clock.now(), clock.utc()
        self._running: dict[Wanted, list[Course]] = {}
        self._keyed: dict[tuple[str, str], Course] = {}
        self._makers: dict[asyncio.Task[object], Course] = {}
        self._lost: dict[str, list[tuple[FoundOrder, asyncio.Future[None]]]] = {}

    def __repr__(self) -> str:
        return f"<Coalescing, {len(self._makers)} courses, {len(self._lost)} calls lost and found>"

    def adopt(self, keep: float) -> None:
        """Remember keys no longer than pictures are kept, which is so many seconds from here on."""
        self._remember = timedelta(seconds=min(DAY_S, keep))

    async def serve(self, call: Call, repeat: Repeat) -> Served:
        """Answer a call whose request says that it may come again; `call.fingerprint` must be set.

        Raises as `Pipeline.serve` does, and `IdempotencyKeyReused`.
        """
        if repeat.key is not None:
            return await self._serve_keyed(call, repeat.key)
        wanted = _wanted(call)
        course = self._course_for(wanted) if repeat.count or repeat.joins else None
        if course is not None:
            return await self._join(course)
        course = self._begin(call)
        self._running.setdefault(wanted, []).append(course)
        try:
            work = self._run(course, self._lost_call(wanted) if repeat.count else None)
            return await self._see_through(course, work)
        finally:
            courses = self._running[wanted]
            courses.remove(course)
            if not courses:
                del self._running[wanted]

    def under_way(self, call: Call, repeat: Repeat) -> bool:
        """Whether a request is for a call that is under way here: another asked for it first."""
        if repeat.key is not None:
            return (call.caller.team, repeat.key) in self._keyed
        return bool(repeat.count or repeat.joins) and self._course_for(_wanted(call)) is not None

    def joins(self, call: Call, repeat: Repeat) -> bool:
        """Whether a first attempt would join another call just now."""
        return repeat.joins and repeat.key is None and self._course_for(_wanted(call)) is not None

    def hang_up(self, task: asyncio.Task[object]) -> None:
        """The client of a request's task left: the call goes on while somebody else listens or may come back."""
        course = self._makers.get(task)
        if course is None:
            task.cancel()
        else:
            self._left(course)

    async def claimed(self, found: FoundOrder) -> bool:
        """Keep an order that a restart found under way until a repeat comes for it; False when none came in time."""
        claim = asyncio.get_running_loop().create_future()
        call_id = found.attempt.call_id
        self._lost.setdefault(call_id, []).append((found, claim))
        try:
            async with asyncio.timeout(self._regain):
                await asyncio.shield(claim)
        except TimeoutError:
            if claim.done():
                return True
            left = [each for each in self._lost.pop(call_id, []) if each[0] is not found]
            if left:
                self._lost[call_id] = left
            return False
        return True

    async def forget_old(self) -> None:
        """Forget `Idempotency-Key`s whose time is over."""
        await self._db.drop_idempotency(self._clock.utc() - self._remember)

    async def _serve_keyed(self, call: Call, key: str) -> Served:
        name = (call.caller.team, key)
        course = self._keyed.get(name)
        if course is not None:
            _must_agree(course.call.fingerprint, call, key)
            return await self._join(course)
        course = self._keyed[name] = self._begin(call, keyed=True)
        try:
            return await self._see_through(course, self._run_keyed(course, key))
        finally:
            del self._keyed[name]

    async def _run_keyed(self, course: Course, key: str) -> Served:
        call, now = course.call, self._clock.utc()
        team, call_id, wanted = call.caller.team, call.id, _wanted(call)[1]
        row = await self._db.claim_idempotency(
            IdempotencyRow(team=team, key=key, fingerprint=wanted, call_id=call_id, user=call.user, created=now),
            now - self._remember,
        )
        _must_agree(row.fingerprint, call, key)
        if row.answered:
            return Served(await self._remembered(row.call_id), "hit")
        try:
            served = await self._run(course, None if row.call_id == call_id else row.call_id)
        except GatewayError:
            # It came to nothing and cost the team nothing, so the key is free for another try.
            with contextlib.suppress(NotReady):
                await self._db.free_idempotency(team, key, row.call_id)
            raise
        await self._db.answer_idempotency(team, key, row.call_id)
        return served

    def _begin(self, call: Call, *, keyed: bool = False) -> Course:
        maker = asyncio.current_task()
        assert maker is not None
        course = self._makers[maker] = Course(call, maker, keyed=keyed)
        return course

    async def _see_through(self, course: Course, work: Awaitable[Served]) -> Served:
        """Bring a course to its end and tell all who joined."""
        outcome: Delivery | BaseException = asyncio.CancelledError()
        try:
            served = await work
            outcome = served.delivery
        except BaseException as error:
            outcome = error
            raise
        finally:
            if course.timer is not None:
                course.timer.cancel()
            self._listeners.enter(course.call.id, back=False)
            del self._makers[course.maker]
            course.end(outcome)
        return served

    async def _run(self, course: Course, earlier: str | None) -> Served:
        """Serve a course, going on from what the call `earlier` left."""
        salvage = None if earlier is None else await self._salvage(course, earlier)
        delivery = await self._serve(course.call, salvage)
        return Served(delivery, "hit" if salvage is not None and salvage.pictures else "miss")

    async def _join(self, course: Course) -> Served:
        course.listeners += 1
        if course.timer is not None:
            course.timer.cancel()
            course.timer = None
        self._listeners.enter(course.call.id)
        try:
            return Served(await asyncio.shield(course.answer()), "joined")
        except asyncio.CancelledError:
            self._left(course)
            raise

    def _left(self, course: Course) -> None:
        course.listeners -= 1
        if course.listeners or course.keyed or course.maker not in self._makers:
            return
        self._listeners.leave(course.call.id)
        course.timer = asyncio.get_running_loop().call_later(self._regain, course.give_up)

    def _course_for(self, wanted: Wanted) -> Course | None:
        """The course a repeat joins: one that nobody listens to, else the one begun last."""
        courses = self._running.get(wanted)
        if not courses:
            return None
        alive = [course for course in courses if not course.given_up]
        return next((course for course in alive if not course.listeners), alive[-1] if alive else None)

    def _lost_call(self, wanted: Wanted) -> str:
        """The call of an order that a restart found, for a repeat to go on with; empty: look for a finished one."""
        for call_id, orders in self._lost.items():
            attempt = orders[0][0].attempt
            if (attempt.key_id, attempt.fingerprint) == wanted:
                return call_id
        return ""

    async def _salvage(self, course: Course, earlier: str) -> Salvage | None:
        """What is left of an earlier try (empty: look for one); the course goes on under that call's id."""
        earlier = earlier or await self._answered_before_restart(course.call)
        if not earlier:
            return None
        pictures, attempts = await self._pictures(earlier)
        decisions = await self._db.decisions(earlier)
        listening = self._listeners.listening(course.call.id)
        self._listeners.enter(course.call.id, back=False)
        course.call = msgspec.structs.replace(course.call, id=earlier)
        if not listening:  # whoever asked left while we looked
            self._listeners.leave(earlier)
        orders = self._lost.pop(earlier, [])
        for _, claim in orders:
            claim.set_result(None)
        return Salvage(
            pictures=pictures,
            orders=tuple(found for found, _ in orders),
            attempts=attempts,
            decided=max((row.number + 1 for row in decisions), default=0),
            policy=attempts[-1].policy if attempts else "",
        )

    async def _answered_before_restart(self, call: Call) -> str:
        """A call whose pictures were charged just before a restart, or nothing: its answer may never have arrived."""
        began, at = self._began
        if self._clock.now() - began > self._regain or call.fingerprint is None:
            return ""
        since = at - timedelta(seconds=2 * self._regain)
        calls = await self._db.answered_calls(call.caller.key_id, call.fingerprint, since)
        return next((call_id for call_id in calls if self._made_before(call_id)), "")

    def _made_before(self, call_id: str) -> bool:
        """Whether a call is of an earlier process: ids begin with the time in milliseconds."""
        digits = call_id.partition("_")[2][:12]
        return int(digits, 16) < self._began[1].timestamp() * 1000

    async def _pictures(self, call_id: str) -> tuple[tuple[Delivered, ...], Sequence[AttemptRow]]:
        pictures = []
        for asset in await self._db.call_assets(call_id):
            data = await self._read(asset.path)
            if data is not None:
                pictures.append(Delivered(asset=asset, data=data))
        return tuple(pictures), await self._db.attempts(call_id)

    async def _remembered(self, call_id: str) -> Delivery:
        """The delivery of a call that was answered before, from what was kept of it."""
        pictures, attempts = await self._pictures(call_id)
        if not pictures:
            raise NotFound("The pictures of this Idempotency-Key are no longer kept.", param="Idempotency-Key")
        return Delivery(
            call_id=call_id,
            decision_id=sibling(call_id, "dec"),
            images=pictures,
            charge=sum(attempt.charge for attempt in attempts),
            policy=attempts[-1].policy if attempts else "",
            attempts=len(attempts),
            offers=offers_of(pictures, [attempt.offer_id for attempt in attempts if attempt.charge]),
        )


def _wanted(call: Call) -> Wanted:
    assert call.fingerprint is not None
    return call.caller.key_id, call.fingerprint


def _must_agree(first: bytes | None, call: Call, key: str) -> None:
    if first != call.fingerprint:
        raise IdempotencyKeyReused(
            f"The Idempotency-Key '{key[:80]}' was first used with another body. Use a fresh key for another request.",
            param="Idempotency-Key",
        )


def _seen(future: asyncio.Future[Delivery]) -> None:
    """Whoever joined hears of it; if all of them have left, nobody needs to."""
    if not future.cancelled():
        future.exception()
