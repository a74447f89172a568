"""All that the imitated sellers share: accounts, the script in force, the book, painters and running jobs."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime

import aiohttp
from aiohttp import web

from providers.sandbox.accounts import Account, Limits
from providers.sandbox.discounts import Contract, Tab
from providers.sandbox.drawing import Painter
from providers.sandbox.endpoints import Endpoint, Seller
from providers.sandbox.faults import NO_FAULT, Faults, Strike
from providers.sandbox.invoice import Book, Line, PriceList, charge, money_back, royalty
from providers.sandbox.jobs import Failure, Job, Wish, scenes_of
from providers.sandbox.latency import Latency
from providers.sandbox.machines import Machine
from providers.sandbox.wire import fingerprint

_REMEMBERED_REQUESTS = 5000
_REMEMBERED_JOBS = 20_000
_ATTEMPT_HEADERS = ("x-pixelgate-attempt", "x-request-id", "idempotency-key", "x-client-request-id")


class World:
    """One sandbox's state; used from one event loop."""

    def __init__(self, *, time_scale: float, seed: int, pictures: str) -> None:
        self.seed = seed
        self.time_scale = time_scale
        self.url = ""
        self.painter = Painter(plain=pictures == "plain")
        self.closing = asyncio.Event()
        self.behind: Callable[[], float] = lambda: 0.0
        """Seconds by which what arrives now may have waited to be looked at."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything that happened; running work stops unbilled."""
        for task in self._tasks:
            task.cancel()
        self.accounts: dict[tuple[Seller, str], Account] = {}
        self.book = Book()
        self.prices = PriceList()
        self.retired: set[tuple[Seller, str]] = set()
        """Endpoints that are no longer sold."""
        self.faults = Faults(self.seed)
        self.latency = Latency(self.seed, self.time_scale)
        self.limits: dict[str, Limits] = {}
        self.contracts: dict[str, Contract] = {}
        self.tabs: dict[tuple[Seller, str], Tab] = {}
        self.jobs: dict[str, Job] = {}
        self.files: dict[str, tuple[Job, int]] = {}
        self.uploads: dict[str, bytes] = {}
        """Inputs that were put here before their orders, by address."""
        self.machines: dict[str, Machine] = {}
        self.requests: deque[dict[str, object]] = deque(maxlen=_REMEMBERED_REQUESTS)

    @property
    def session(self) -> aiohttp.ClientSession:
        """For the webhooks sent out."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self._session

    async def aclose(self) -> None:
        """Stop all work and give back threads and connections."""
        self.closing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(self.painter.close)

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something that outlives its connection."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def account(self, seller: Seller, name: str) -> Account:
        """The account behind a key; made when first seen, with the limits in force."""
        known = self.accounts.get((seller, name))
        if known is not None:
            return known
        account = self.accounts[seller, name] = Account(seller, name)
        for key in (seller, f"{seller}/{name}"):
            if key in self.limits:
                account.limit(self.limits[key])
        return account

    def sells(self, seller: Seller, endpoint: str) -> bool:
        """Whether an endpoint can still be ordered from."""
        return (seller, endpoint) not in self.retired

    def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """Change limits of a seller (`fal`) or of one account (`fal/team-a`), at once."""
        self.limits.update(limits)
        for (seller, name), account in self.accounts.items():
            for key in (seller, f"{seller}/{name}"):
                if key in limits:
                    account.limit(limits[key])

    def set_contracts(self, contracts: Mapping[str, Contract]) -> None:
        """Put terms in force for a seller (`fal`) or one account (`fal/team-a`); its bills begin anew under them."""
        self.contracts.update(contracts)
        self.tabs.clear()

    def tab(self, seller: Seller, name: str) -> Tab:
        """The running bill of an account."""
        known = self.tabs.get((seller, name))
        if known is None:
            contract = self.contracts.get(f"{seller}/{name}") or self.contracts.get(seller) or Contract()
            known = self.tabs[seller, name] = Tab(contract)
        return known

    def machine(self, name: str) -> Machine:
        """The GPU server of a name; made when first asked for."""
        if name not in self.machines:
            self.machines[name] = Machine(name)
        return self.machines[name]

    def submission(self, request: web.Request, account: Account, endpoint: str, body: bytes) -> Strike:
        """Count a submission and say which fault falls on it."""
        attempt = next((request.headers[name] for name in _ATTEMPT_HEADERS if name in request.headers), None)
        account.arrive(endpoint, fingerprint(body), attempt)
        return self.faults.strike(account.seller, account.name, endpoint, time.monotonic())

    def new_id(self, account: Account, kind: str = "id") -> str:
        """32 hex digits, the same for the same seed, account and number of the submission."""
        return f"{random.Random(self._draw(account) + kind).getrandbits(128):032x}"

    def drawn_seed(self, account: Account) -> int:
        """The seed of an order that names none."""
        return random.Random(self._draw(account) + "seed").getrandbits(31)

    def _draw(self, account: Account) -> str:
        return f"{self.seed}/{account.seller}/{account.name}/{account.index}/"

    def accept(self, job: Job, wish: Wish | None, failure: Failure | None = None) -> Job:
        """Take an order in and start it; the work goes on whatever becomes of the connection.

        With a `failure` it ends so, unbilled: after its work when the wish is known, else soon.
        """
        account, endpoint, strike = job.account, job.endpoint, job.strike
        draw = self._draw(account)
        job.wish, job.failure = wish, failure
        if wish is not None:
            work_s = self.latency.run_s(endpoint, wish.size, wish.count, wish.steps, draw)
            job.cold_s = self.latency.cold_start_s(endpoint, draw, time.monotonic())
            job.run_s = _slowed(work_s, strike) + job.cold_s
        account.accept()
        job.task = self.spawn(self._perform(job))
        return job

    def remember(self, job: Job) -> None:
        """Keep an order findable by its id; the oldest are forgotten."""
        self.jobs[job.id] = job
        if len(self.jobs) > _REMEMBERED_JOBS:
            del self.jobs[next(iter(self.jobs))]

    async def _perform(self, job: Job) -> None:
        account = job.account
        try:
            async with job.gate.slot(job.id):
                job.state = "running"
                job.started_at = datetime.now(UTC)
                job.machine_ns = _machine_ns(job)
                account.stats.peak_running = max(account.stats.peak_running, job.gate.running)
                await self._work(job)
        except asyncio.CancelledError:
            job.state = "cancelled"
            raise
        else:
            job.state = "done"
        finally:
            job.ended_at = datetime.now(UTC)
            account.in_flight -= 1
            job.finished.set()

    async def _work(self, job: Job) -> None:
        if job.failure is not None or job.wish is None:
            await asyncio.sleep(job.run_s)
            if job.wish is not None and job.endpoint.by_the_second:
                self.bill(job)
            return
        scenes = scenes_of(job.endpoint, job.wish, job.strike, black=job.flagged)
        paintings = (self.painter.paint(scene) for scene in scenes)
        worked = asyncio.ensure_future(asyncio.sleep(job.run_s))
        pictures = await asyncio.gather(*paintings)
        await worked
        job.scenes = scenes
        if job.wish.inline:
            job.pictures = pictures
        else:
            job.links = [self._shelve(job, number) for number in range(len(scenes))]
        self.bill(job)

    def _shelve(self, job: Job, number: int) -> str:
        name = f"{fingerprint(self.seed, job.id, number)}.{job.scenes[number].format}"
        self.files[name] = (job, number)
        return name

    def bill(self, job: Job) -> None:
        """Write what an order took into the book."""
        cost, at, account = charge(job.price, job.work), datetime.now(UTC), job.account
        tab, pictures = self.tab(account.seller, account.name), len(job.scenes)
        slip = tab.enter(cost.nano_usd, pictures, at)
        line = Line(
            provider=account.seller,
            account=account.name,
            request_id=job.id,
            model=job.endpoint.id,
            units=cost.units,
            unit_usd=cost.unit_usd,
            nano_usd=slip.owed,
            pictures=pictures,
            at=at,
            percent=slip.percent,
            prepaid=slip.prepaid,
            reported=job.strike.do != "cut_billing",
            machine=job.machine,
            attempt=job.attempt,
            machine_ns=job.machine_ns,
        )
        self.book.enter(line)
        if slip.back:
            self.book.enter(money_back(line, slip.back, at))
        for what, owed in tab.royalty(job.endpoint.id, pictures, at):
            self.book.enter(royalty(line, what, owed))

    def refund(self, seller: Seller, request_id: str, nano_usd: int) -> None:
        """Give money back for an order that was billed; raises `LookupError` for one that was not."""
        billed = [line for line in self.book.lines if (line.provider, line.request_id) == (seller, request_id)]
        if not billed:
            raise LookupError(f"{seller} never billed a request {request_id}")
        at = datetime.now(UTC)
        prepaid = self.tab(seller, billed[0].account).refund(nano_usd, at)
        self.book.enter(money_back(billed[0], nano_usd, at, prepaid))

    def open_job(self, account: Account, endpoint: Endpoint, order_id: str, strike: Strike = NO_FAULT) -> Job:
        """An order about to be accepted, at the price in force now."""
        return Job(order_id, account, endpoint, self.prices.of(endpoint.seller, endpoint.id), strike)


def _machine_ns(job: Job) -> int:
    """Nanoseconds of a machine: by the second they are sold whole, while ours are shared by all they draw at once."""
    if job.endpoint.by_the_second:
        return round(job.machine_s * 1e9)
    return round(job.run_s * 1e9) // job.gate.running


def _slowed(work_s: float, strike: Strike) -> float:
    if strike.do != "slow":
        return work_s
    return work_s * strike.args.factor if strike.args.seconds is None else strike.args.seconds
