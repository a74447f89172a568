"""Builds the gateway from its settings and runs what runs beside requests. The one place where everything meets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
import structlog
from litestar import Litestar
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp

from gateway import telemetry
from gateway.assets import Assets, FolderBlobs
from gateway.clock import Clock, SystemClock
from gateway.features.alerts import LOOK_S, Alerts, hooks_of
from gateway.features.canaries import Canaries, served
from gateway.features.invoices import Outlook, as_invoiced, outlooks
from gateway.features.judging import WORDS, Judging
from gateway.features.key_brake import KeyBrake, Terms
from gateway.features.known_prices import remember
from gateway.features.policy_history import History
from gateway.features.pressure_watch import PressureWatch
from gateway.features.price_watch import PriceWatch
from gateway.features.privacy import Eraser
from gateway.features.reloading import Condition, Reloading
from gateway.features.sentinel import LOOK_S as SENTINEL_LOOK_S
from gateway.features.sentinel import Sentinel
from gateway.features.shadowing import Shadowing
from gateway.features.soft_limits import SoftLimits
from gateway.features.spend_watch import SpendWatch
from gateway.http import generations, routes
from gateway.http.arms import Split
from gateway.http.auth import KeyRing
from gateway.http.bodies import Arriving
from gateway.http.errors import exception_handlers
from gateway.http.forms import MAX_FILE
from gateway.http.front import front
from gateway.http.services import Services
from gateway.ids import new_id
from gateway.money.ledger import Ledger
from gateway.provenance import signer_of
from gateway.requests.admission import Admission
from gateway.requests.attempts import House
from gateway.requests.call import Call, Delivery
from gateway.requests.coalescing import Coalescing
from gateway.requests.content_hook import ContentHook
from gateway.requests.listeners import Listeners
from gateway.requests.lost_orders import LostOrders
from gateway.requests.market import Market
from gateway.requests.orders import RunningOrder, Salvage, Workshop
from gateway.requests.pipeline import Pipeline
from gateway.requests.quoting import QuotedOffer
from gateway.requests.recovery import Recovery
from gateway.requests.regime import Regime
from gateway.requests.waiting_room import WaitingRoom
from gateway.revisions import Revision, Shelf, load_revision
from gateway.settings import Settings, read_pepper
from gateway.storage.database import Database, open_database
from gateway.storage.policies import CanaryRow
from policies.catalog import Catalog
from policies.engine import CostEngine
from policies.experiments.definition import Experiment
from policies.policy import Policy
from policies.types import Engine, Offer
from policies.velocity import Brake
from providers import registry
from providers.contract import LoadsFirst, Provider
from providers.transport import Http

if TYPE_CHECKING:
    from gateway.features.measuring import Measuring

log = structlog.get_logger("gateway.app")

T = TypeVar("T")


class Drop(Protocol):
    """Forgets what is kept of calls."""

    def __call__(self, before: datetime, *, team: str | None, but: Sequence[str] = ()) -> Awaitable[None]:
        """That of a team's calls before a moment; without a team, that of all `but` some."""


HEARTBEAT_S = 5.0
TICK_S = 1.0
EXPIRY_S = 60.0
MEASURE_S = 10.0
"""Seconds between two pairs measured while no order is under way."""
BUSY_S = 120.0
"""The same while some are: live calls would wait for 50 ms of work, and the first time for what it loads."""
FIRST_LISTS_S = 60.0
"""Seconds after a start until sellers' lists are read: one that restarts daily reads them, too."""
EXPIRE_AT_ONCE = 1_000


class App:
    """A running gateway: its doors (`asgi`), its request path, its books, and the work beside them."""

    def __init__(  # noqa: PLR0913  (this is the wiring: each collaborator is named once, here)
        self,
        settings: Settings,
        revision: Revision,
        *,
        db: Database,
        ledger: Ledger,
        keys: KeyRing,
        providers: Mapping[str, Provider],
        http: Http,
        engine: Engine,
        assets: Assets,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.revision = revision
        self.db = db
        self.ledger = ledger
        self.keys = keys
        self.providers = dict(providers)
        self._loading: dict[str, LoadsFirst] = {
            name: each for name, each in providers.items() if isinstance(each, LoadsFirst)
        }
        self.engine = engine
        self.assets = assets
        self.clock = clock
        self._http = http
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False
        self._last: dict[str, tuple[float, float]] = {}
        """Work beside requests -> when it was done last, and every how many seconds it is."""
        self._ahead: Mapping[str, Outlook] = {}
        """How accounts' invoices stood when they were last looked at."""
        self.running: set[RunningOrder] = set()
        self.reloading: Reloading | None = None
        self.canaries: Canaries | None = None
        self.admission = Admission(
            lambda capacity, busy, spare: self.engine.room(capacity, busy, clock.now(), spare), revision.catalog.rates()
        )
        self.waiting = WaitingRoom(revision.policy.max_waiting)
        self.market = Market(revision.catalog, self.admission)
        self.listeners = Listeners()
        self._offers: dict[str, Offer] = dict(revision.catalog.offers)
        """Every offer there ever was here: recovery may find orders for one that has left the catalogue."""
        self._house = self._make_house()
        self.regime = self._regime(revision.policy, revision.catalog, engine)
        self.shadowing = Shadowing(db=db, clock=clock, assets=assets, spawn=self.spawn, running=self.running)
        self.judging = Judging(db=db, assets=assets, http=http, clock=clock, terms=lambda: self.settings.shadow.judge)
        self._measured = self._asked = clock.now()
        self._opinion: asyncio.Task[Any] | None = None
        self._carry_out_experiments()
        self.coalescing = Coalescing(
            self.serve,
            db=db,
            read=assets.read,
            clock=clock,
            listeners=self.listeners,
            regain=settings.orders.regain,
            keep=revision.policy.keep_assets,
        )
        told = settings.alerts
        self.alerts = Alerts(db, ledger, clock, http, hooks_of(settings), told.levels, silenced=told.silenced)
        self.sentinel = Sentinel(
            db=db,
            clock=clock,
            assets=assets,
            alerts=self.alerts,
            terms=lambda: self.settings.sentinel,
            catalog=lambda: self.revision.catalog,
            path=self.shadowing.path,
        )
        self.price_watch = PriceWatch(
            db,
            clock,
            self.alerts,
            self.providers,
            lambda: tuple(self.revision.catalog.offers.values()),
            timedelta(seconds=settings.alerts.stale_prices),
        )
        self.spend_watch = SpendWatch(db, clock, self.alerts)
        self.pressure_watch = PressureWatch(db, clock, self.alerts, self._full)
        self.key_brake = self._brake()
        self.recovery = self._recovery()
        self.soft_limits = SoftLimits()
        self._services = self._make_services()
        self.asgi = self._doors()

    @property
    def pipeline(self) -> Pipeline:
        """The request path of the calls to come."""
        return self.regime.pipeline

    def serve(self, call: Call, salvage: Salvage | None = None) -> Coroutine[Any, Any, Delivery]:
        """Answer a call under the regime it was read by; see `Pipeline.serve`."""
        serving = served(self.canaries, call.regime or self.regime, call, salvage)
        return serving if self.shadowing.idle else self.shadowing.followed(serving, call)

    def quote(self, call: Call) -> Coroutine[Any, Any, Sequence[QuotedOffer]]:
        """What every offer would charge; see `Pipeline.quote`."""
        return (call.regime or self.regime).pipeline.quote(call)

    def adopt(self, settings: Settings, revision: Revision) -> None:
        """Put a checked configuration in force, in one step. Calls under way go on under the regime they began with.

        What was learned, and what is leased, stays; what accounts allow counts at once.
        """
        for name, account in settings.accounts_on().items():
            if name not in self.providers:
                provider = registry.connect(account.kind, name, account.adapter_settings(), self._http)
                self.providers[name] = provider
                if isinstance(provider, LoadsFirst):
                    self._loading[name] = provider
        policy, catalog = revision.policy, as_invoiced(revision.catalog, self._ahead)
        self.spawn(self.ledger.set_billing(catalog.billings))
        self.settings, self.revision = settings, revision
        self.spawn(asyncio.to_thread(remember, settings, catalog))
        self._offers |= catalog.offers
        self.engine = self.engine.under(policy, catalog.capacities, catalog.offers)
        self.admission.adopt(catalog.rates())
        self.waiting.adopt(policy.max_waiting)
        self.market = Market(catalog, self.admission)
        self.regime = self._regime(policy, catalog, self.engine)
        self.assets.adopt(policy.keep_assets, policy.team_keep_assets)
        self.coalescing.adopt(policy.keep_assets)
        self._services.adopt(catalog, policy, self.regime)
        self._carry_out_experiments()
        for capacity in catalog.capacities:
            self.admission.stir(capacity)
        if self.canaries is not None:
            self.canaries.rebased()

    def try_beside(self, canary: CanaryRow, policy: Policy) -> None:
        """Serve a canary's share of callers under its policy from now on, the others under the one in force."""
        catalog = self.revision.catalog
        control = msgspec.structs.replace(self.regime, arm="control", canary=canary.id)
        other = self._regime(policy, catalog, self.engine.beside(policy))
        other = msgspec.structs.replace(other, arm="canary", canary=canary.id)
        split = Split(canary=canary.id, share=canary.share, teams=frozenset(canary.teams))
        self._services.try_beside(split, control, other)

    def stop_trying(self) -> None:
        """Serve everybody under the policy in force."""
        self._services.arms = None

    def follow_files(self, read: Callable[[], Settings], shelf: Shelf) -> Reloading:
        """Put changed files in force from `start` on; `read` reads the settings anew."""
        self.reloading = Reloading(
            self.settings,
            self.revision,
            read=read,
            shelf=shelf,
            adopt=self.adopt,
            clock=self.clock,
            history=History(self.db),
        )
        self.canaries = Canaries(self, db=self.db, clock=self.clock, spawn=self.spawn, wrote=self.reloading.at_once)
        return self.reloading

    def condition(self) -> Condition:
        """How the files on disk stand to what is in force."""
        if self.reloading is not None and self.canaries is not None:
            return msgspec.structs.replace(self.reloading.condition, canary=self.canaries.label)
        return Condition(policy=self.revision.policy.label, prices=self.revision.number)

    def _carry_out_experiments(self) -> None:
        """Copy calls as the policy in force says."""
        self.shadowing.adopt(self.regime, self.engine, self._offers, self._path_beside)

    def _path_beside(self, engine: Engine, policy: Policy) -> Pipeline:
        """A request path for orders that are no caller's: no content hook looks, and they never stand in line."""
        shop = msgspec.structs.replace(self._house.shop, engine=engine, content=None)
        last = dict.fromkeys(policy.intents, -inf)
        house = msgspec.structs.replace(self._house, shop=shop, market=self.market, priorities=last)
        return Pipeline(house, policy, self.regime.catalog)

    def _regime(self, policy: Policy, catalog: Catalog, engine: Engine) -> Regime:
        shop = msgspec.structs.replace(self._house.shop, engine=engine)
        priorities = {name: intent.priority for name, intent in policy.intents.items()}
        house = msgspec.structs.replace(self._house, shop=shop, market=self.market, priorities=priorities)
        return Regime(policy=policy, catalog=catalog, pipeline=Pipeline(house, policy, catalog))

    def _make_house(self) -> House:
        orders = self.settings.orders
        return House(
            shop=Workshop(
                engine=self.engine,
                providers=self.providers,
                loading=self._loading,
                assets=self.assets,
                clock=self.clock,
                order_timeout=orders.timeout,
                callbacks=self.settings.public_base if self.settings.callbacks else None,
                linger=orders.linger,
                content=self._content_hook(),
                listeners=self.listeners,
                spawn=self.spawn,
            ),
            ledger=self.ledger,
            admission=self.admission,
            market=self.market,
            waiting=self.waiting,
            priorities={},
            patience=orders.patience,
            least_patience=orders.least_patience,
            running=self.running,
        )

    def _content_hook(self) -> ContentHook | None:
        hook = self.settings.content_hook
        if hook.url is None:
            return None
        return ContentHook(
            http=self._http,
            url=hook.url,
            before=hook.before,
            inputs=hook.inputs,
            after=hook.after,
            timeout=hook.timeout,
            on_failure=hook.on_failure,
        )

    def _brake(self) -> KeyBrake:
        terms = self.settings.brake
        return KeyBrake(
            self.db,
            self.ledger.charged_keys,
            self.keys.follow,
            self.clock,
            self.alerts,
            Terms(rule=Brake(factor=terms.factor, floor=terms.floor, hours=terms.hours), pause=terms.pause),
        )

    def _recovery(self) -> Recovery:
        return Recovery(
            db=self.db,
            ledger=self.ledger,
            clock=self.clock,
            providers=self.providers,
            offers=self._offers,
            admission=self.admission,
            lost_orders=LostOrders(
                db=self.db,
                clock=self.clock,
                offers=self._offers,
                spawn=self.spawn,
                order_timeout=self.settings.orders.timeout,
                unknown_after=self.settings.recovery.unknown_after,
            ),
            spawn=self.spawn,
            claimed=self.coalescing.claimed,
            order_timeout=self.settings.orders.timeout,
            linger=self.settings.orders.linger,
            stale_after=self.settings.recovery.stale_after,
            unknown_after=self.settings.recovery.unknown_after,
            reconciled=self.alerts.reconciled,
        )

    async def _fetch_named(self, url: str) -> bytes:
        """The picture behind a URL that a caller names."""
        inputs = self.settings.inputs
        deadline = asyncio.get_running_loop().time() + inputs.fetch_timeout
        with Arriving() as arriving:
            return await self._http.fetch_named(
                url, origins=inputs.origins, limit=MAX_FILE, deadline=deadline, count=arriving.add
            )

    def _make_services(self) -> Services:
        services = Services(
            serve=self.serve,
            coalescing=self.coalescing,
            quote=self.quote,
            db=self.db,
            catalog=self.revision.catalog,
            policy=self.revision.policy,
            keys=self.keys,
            clock=self.clock,
            public_base=self.settings.public_base,
            blobs=self.assets,
            fetch=self._fetch_named,
            eraser=Eraser(db=self.db, assets=self.assets, providers=self.providers, clock=self.clock),
            providers=self.providers,
            ready=self.ready,
            configuration=self.condition,
            soft_limits=self.soft_limits,
        )
        services.adopt(self.revision.catalog, self.revision.policy, self.regime)
        return services

    def _doors(self) -> ASGIApp:
        services = self._services
        litestar = Lean(
            route_handlers=routes(services),
            exception_handlers=exception_handlers(),
            lifespan=[self._lifespan],
            openapi_config=None,
            logging_config=None,
        )
        return front({generations.PATH: generations.generations(services)}, litestar)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncIterator[None]:
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that outlives the request it came from; `stop` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever waits for the task reports it; orders book their own failures

    async def idle(self) -> None:
        """Wait until nothing is under way: orders, wanted or not, and what follows them."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def start(self) -> None:
        """Say that we live, take over what a crash left open, and begin the work beside requests.

        Sellers are asked beside it: one that is down, or whose bill is long, keeps nobody waiting.
        """
        await self.ledger.beat()
        await self.recovery.take_over()
        await self._look_at_invoices()
        self._loops = [
            self._every("heartbeat", HEARTBEAT_S, self.ledger.beat),
            self._every("recovery", self.settings.recovery.every, self.recovery.sweep, first=0.0),
            self._every("reconcile", self.settings.recovery.reconcile, self.recovery.reconcile),
            self._every("bills", self.settings.recovery.bills, self.recovery.glance),
            self._every("keys", TICK_S, self.keys.follow),
            self._every("tick", TICK_S, self._tick),
            self._every("invoices", TICK_S, self._look_at_invoices),
            self._every("expiry", EXPIRY_S, self._expire),
            self._every("alerts", LOOK_S, self.alerts.work),
            self._every("spending", LOOK_S, self.spend_watch.work),
            self._every("pressure", LOOK_S, self.pressure_watch.work),
            self._every("soft limits", TICK_S, self._look_at_soft_limits),
            self._every("prices", self.settings.recovery.price_lists, self.price_watch.work, first=FIRST_LISTS_S),
            self._every("experiments", TICK_S, self.shadowing.look),
            self._every("fetches", HEARTBEAT_S, self._keep_fetches),
            self._every("sentinel", SENTINEL_LOOK_S, self.sentinel.work),
            self._every("measuring", MEASURE_S, self._measure),
            self._every("judging", MEASURE_S, self._judge),
            self._every("log", TICK_S, self._flush_log),
        ]
        if not self.settings.brake.off:
            self._loops.append(self._every("brake", LOOK_S, self.key_brake.work))
        if self.reloading is not None:
            self._loops.append(asyncio.get_running_loop().create_task(self.reloading.follow(), name="reloading"))
        if self.canaries is not None:
            self._loops.append(self._every("canary", TICK_S, self.canaries.look))
        await asyncio.to_thread(remember, self.settings, self.revision.catalog)
        _calm_the_collector()
        log.info("gateway_started", accounts=sorted(self.providers), offers=len(self.revision.catalog.offers))

    async def _look_at_invoices(self) -> None:
        """Accounts allow what their credit buys, and offers weigh by what the invoice will make of them."""
        ahead = await outlooks(self.db, self.revision.catalog.billings, self.clock.utc())
        if ahead != self._ahead:
            log.info("invoices_look_otherwise", accounts=msgspec.to_builtins(ahead))
            self._ahead = ahead
            self.adopt(self.settings, self.revision)

    def leaving(self) -> None:
        """We have been asked to stop: nobody need wait any longer for what will not be ordered."""
        self._stopping = True
        self.shadowing.close()
        self.waiting.close()

    async def stop(self) -> None:
        """Let running orders end, at most `orders.drain`; then leave the rest to recovery, and close."""
        self.leaving()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.settings.orders.drain)
        for task in (*self._loops, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._loops, *self._tasks, return_exceptions=True)
        await self.shadowing.keep_finished()
        await self.shadowing.note_left_out()
        for provider in list(self.providers.values()):
            await provider.aclose()
        await self._http.aclose()
        await self._keep_fetches()
        await self.ledger.stop()
        await self.db.aclose()
        log.info("gateway_stopped")
        telemetry.flush()

    def ready(self) -> Mapping[str, str]:
        """Part -> "ok", or why it is not."""
        now = self.clock.now()
        behind = {
            name: "has not run for a while" if overdue(now - last, every) else "ok"
            for name, (last, every) in self._last.items()
        }
        sellers = "ok" if self.providers else "no provider account is on"
        return {"providers": sellers, "accepting": "stopping" if self._stopping else "ok", **behind}

    def _full(self) -> Mapping[str, bool]:
        """Of each account with limits, whether it has no room for one more order."""
        full: dict[str, bool] = {}
        for capacity in self.revision.catalog.capacities:
            account = capacity.partition("/")[0]
            room = self.engine.room(capacity, self.admission.in_flight(capacity), self.clock.now())
            full[account] = full.get(account, False) or room > 0
        return full

    @cached_property
    def measuring(self) -> Measuring:
        """Made when first needed: it comes with numpy, for which a start has no time."""
        from gateway.features.learned import LearnedMeasures
        from gateway.features.measuring import Measuring

        return Measuring(self.db, self.assets, LearnedMeasures(self.settings.models_folder))

    async def _measure(self) -> None:
        waited = self.clock.now() - self._measured
        if not self.shadowing.idle and (not self.running or waited >= BUSY_S):
            self._measured = self.clock.now()
            await self.measuring.some(1)
            for name, why in self.measuring.learned.untold().items():
                log.warning("learned_measure_failed", reason=name, detail=why)

    async def _judge(self) -> None:
        """Ask about one pair; beside this loop, for an answer may take a minute."""
        asking = [each for each in self.revision.policy.experiments if "judge" in each.compare]
        waited = self.clock.now() - self._asked
        is_asked = self._opinion is not None and not self._opinion.done()
        if asking and not is_asked and (not self.running or waited >= BUSY_S):
            self._asked = self.clock.now()
            self._opinion = self.spawn(self._ask_judge(asking))

    async def _ask_judge(self, experiments: Sequence[Experiment]) -> None:
        try:
            ended = await self.judging.some(1, experiments)
            for why in ended.keys() - WORDS:
                log.warning("judge_silent", reason=why)
        except Exception:
            log.exception("background_work_failed", work="judging")

    async def _tick(self) -> None:
        self.engine.tick(self.market, self.clock.now())

    async def _look_at_soft_limits(self) -> None:
        await self.soft_limits.look(self.db, self.clock.utc())

    async def _expire(self) -> None:
        """Delete the pictures whose time is over, a few at a time."""
        for asset in await self.db.expired_assets(self.clock.utc(), EXPIRE_AT_ONCE):
            await self.assets.forget([asset.path])
            await self.db.drop_asset(asset.id)
        await self.coalescing.forget_old()
        await self.db.drop_pairs(self.clock.utc())
        policy = self.revision.policy
        await self._forget(self.db.drop_recipes, policy.keep_prompts, policy.team_keep_prompts)
        await self._forget(self.db.drop_decisions, policy.keep_decisions, policy.team_keep_decisions)

    async def _forget(self, drop: Drop, usual: float | None, teams: Mapping[str, float]) -> None:
        """Forget what a call asked for, or why it was served so, once its time is over; teams may have own terms."""
        now = self.clock.utc()
        for team, seconds in teams.items():
            await drop(now - timedelta(seconds=seconds), team=team)
        if usual is not None:
            await drop(now - timedelta(seconds=usual), team=None, but=tuple(teams))

    async def _keep_fetches(self) -> None:
        await self._services.fetches.keep(self.db)

    async def _flush_log(self) -> None:
        telemetry.flush()

    def _every(
        self, name: str, seconds: float, work: Callable[[], Awaitable[object]], *, first: float | None = None
    ) -> asyncio.Task[None]:
        """Do something again and again, for the first time after `first` seconds."""

        async def repeat() -> None:
            wait = seconds if first is None else min(first, seconds)
            while True:
                await asyncio.sleep(wait)
                wait = seconds
                try:
                    await work()
                except Exception:
                    log.exception("background_work_failed", work=name)
                else:
                    self._last[name] = self.clock.now(), seconds

        return asyncio.get_running_loop().create_task(repeat(), name=name)


class Lean(Litestar):
    """Litestar without its usual plugins: they load the first version of pydantic, too, and no handler here needs it.

    That was a tenth of what a start takes, and 2 MB.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def overdue(since: float, every: float) -> bool:
    """Whether work that is to be done every so many seconds has not been done for too long; `since` are seconds."""
    return since > 2 * every + 10 * HEARTBEAT_S


def _calm_the_collector() -> None:
    """Keep what start-up made out of every garbage collection, and collect less often: requests leave few circles.

    With Python's defaults a tenth of a busy gateway's time goes into collections that find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def cost_engine(revision: Revision) -> Engine:
    """The engine in force."""
    return CostEngine(revision.policy, revision.catalog.capacities, revision.catalog.offers)


async def build(
    settings: Settings,
    revision: Revision | None = None,
    *,
    clock: Clock | None = None,
    engine: Callable[[Revision], Engine] = cost_engine,
) -> App:
    """Connect everything the settings name; raises `BadFile` or `registry.UnknownKind` before anything is started."""
    clock = clock or SystemClock()
    revision = revision or load_revision(settings)
    db = open_database(settings.database_url, settings.database.durability)
    await db.check()
    ledger = Ledger(db, new_id("own"), clock)
    await ledger.set_billing(revision.catalog.billings)
    await ledger.beat()
    keys = KeyRing(db, read_pepper(settings), clock)
    await keys.refresh()
    http = Http()
    providers = {
        name: registry.connect(account.kind, name, account.adapter_settings(), http)
        for name, account in settings.accounts_on().items()
    }
    return App(
        settings,
        revision,
        db=db,
        ledger=ledger,
        keys=keys,
        providers=providers,
        http=http,
        engine=engine(revision),
        assets=Assets(
            FolderBlobs(settings.assets_folder),
            clock,
            revision.policy.keep_assets,
            revision.policy.team_keep_assets,
            signer_of(settings),
        ),
        clock=clock,
    )
