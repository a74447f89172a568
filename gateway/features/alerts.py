"""Tells people about money in time: budgets that fill, bills that differ. Each thing once, whatever restarts.

An alert's id is made of what it is about (kind, subject, window, level), and the database keeps ids: whoever notices
the same again, in this process or another, tells nobody. Deliveries are kept by hook; one that fails is tried again for
a day. A hook may get an alert twice, when we end between its answer and our note of it; the id in the header tells.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

import msgspec
import structlog
from msgspec import Struct, to_builtins

from gateway.clock import Clock
from gateway.money.differences import Cause, Difference
from gateway.money.ledger import Ledger
from gateway.money.price_list import Finding
from gateway.money.reconcile import Resolution
from gateway.settings import Settings, Silenced
from gateway.storage.budgets import (
    CALENDAR,
    Window,
    about,
    by_word,
    counted_windows,
    limit_at,
    soft_limit_at,
    told_in,
    window_at,
)
from gateway.storage.database import Database, Spending
from gateway.storage.rows import AlertRow, BudgetRow, KeyRow
from policies.alarms import Pressure
from policies.money import to_usd
from providers.contract import UsageTotal
from providers.transport import Http, WireError

log = structlog.get_logger("gateway.alerts")

LOOK_S = 5.0
"""Seconds between two looks."""
KEPT = timedelta(days=1)
"""For how long a delivery that fails is tried again."""
PATIENCE_S = 10.0
"""Seconds for a hook to answer."""
KINDS: Mapping[str, str] = {
    "budget": "a budget that has passed a level",
    "budget_soft": "a budget that is past its soft limit",
    "budget_forecast": "a budget that will be spent before its window is over",
    "unusual_spend": "an hour that costs far more than usual",
    "key_paused": "a key that is paused, since it spent far more than usual",
    "rate_pressure": "an account whose limits stand in the way",
    "bill_drift": "a seller that bills other than our prices say",
    "strange_bill": "a seller that bills orders which are none of ours",
    "listed_price": "a seller's list that says something else than our book",
    "offer_changed": "an offer that no longer draws or bills as it did",
    "stale_prices": "prices that nobody has looked at for long",
    "test": "a test",
}
"""Every kind of alert, and what it tells."""
_EARLY = 0.05
"""Share of a window before which its pace says nothing."""
_SOME = 0.25
"""Share of a budget before which nobody wants a forecast."""
_DONE = {
    "notify": "",
    "preview": "Calls without a tier of their own are drawn at the lowest until it renews.",
    "queue": "Its calls wait behind all others until it renews.",
}
_CHANGED: Mapping[Cause, str] = {
    "price": "The price changed",
    "units": "The number of units changed",
    "price and units": "Price and number of units changed",
}
_encode = msgspec.json.Encoder().encode


class Hook(Struct, frozen=True, kw_only=True):
    """Somewhere alerts are posted to."""

    name: str
    """What deliveries are kept under; the address itself is a secret."""
    url: str
    form: Literal["slack", "json"]
    secret: str | None = None
    """Signs what is sent."""


def hooks_of(settings: Settings) -> list[Hook]:
    """The hooks whose address is set."""
    return [
        Hook(
            name=hook.url_env,
            url=hook.url.get_secret_value(),
            form=hook.form,
            secret=None if hook.secret is None else hook.secret.get_secret_value(),
        )
        for hook in settings.alerts.hooks
        if hook.url is not None
    ]


class PausedKey(Struct, frozen=True, kw_only=True):
    """Why a key was paused; nano-dollars."""

    hour: int
    """Hours since 1970, in UTC."""
    spent: int
    """What it spent in it so far."""
    usual: int


class Alerts:
    """Looks at budgets and bills, and tells."""

    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        clock: Clock,
        http: Http,
        hooks: Sequence[Hook],
        levels: Sequence[int],
        *,
        silenced: Sequence[Silenced] = (),
    ) -> None:
        """`levels` are the percentages of a budget that are told; `silenced` says what is posted to no hook."""
        self._db = db
        self._ledger = ledger
        self._clock = clock
        self._http = http
        self._hooks = tuple(hooks)
        self._levels = tuple(sorted(levels))
        self._silenced = frozenset((each.kind, each.account) for each in silenced)

    async def work(self) -> None:
        """Look once, and deliver what is still to be told."""
        await self.look()
        await self.deliver()

    async def look(self) -> None:
        """Raise an alert for every budget that has passed a level, or will not last."""
        now, refused = self._clock.utc(), self._ledger.take_refusals()
        for budget in await self._db.budgets():
            if budget.of == "shadow":  # made to be spent, day by day
                continue
            counters = by_word(await self._db.counters(budget.id, counted_windows(budget, now)))
            for alert in self._of_budget(budget, counters, now, refused=budget.id in refused):
                await self.tell(alert)
        keys, teams = await self._db.spending()
        for kind, all_of_them in (("key", keys), ("team", teams)):
            for name, spending in all_of_them.items():
                for alert in self._of_life(kind, name, spending, now, refused=name in refused):
                    await self.tell(alert)

    async def reconciled(self, account: str, found: Resolution) -> None:
        """Raise an alert where a seller bills other than our book said, or bills what was never ordered here."""
        now = self._clock.utc()
        if found.strangers:
            nano = sum(line.nano_usd for line in found.strangers)
            text = (
                f"{account} bills {len(found.strangers)} orders that are none of ours, {to_usd(nano)} USD in all. Does "
                f"somebody else use its key?"
            )
            facts = {"account": account, "orders": len(found.strangers), "nano_usd": nano}
            await self.tell(_alert("strange_bill", (account, now.date().isoformat()), now, text, facts))
        for endpoint in sorted({total.endpoint for total in found.elsewhere}):
            await self._billed_elsewhere(account, [each for each in found.elsewhere if each.endpoint == endpoint], now)
        if not found.corrections or (found.corrected_by == 0 and await self._db.billing_counters(account)):
            return  # orders either side of a discount, billed in another order than ours: in all they cost the same
        changed = _changed(found.differences)
        why = "Has a price changed?"
        if changed is not None:
            why = f"{_CHANGED[changed.cause]} of {changed.endpoint}: {changed.says}."
        text = (
            f"{account} bills other than our prices say: {found.corrections} of our entries were corrected, by "
            f"{to_usd(found.corrected_by)} USD in all{_some(found.endpoints)}. {why} "
            f"`pixelgate ledger reconcile` shows where."
        )
        facts = {
            "account": account,
            "corrections": found.corrections,
            "nano_usd": found.corrected_by,
            "endpoints": found.endpoints,
            "differences": to_builtins(found.differences),
        }
        place = (account, now.date().isoformat(), *(() if changed is None else (changed.cause,)))
        await self.tell(_alert("bill_drift", place, now, text, facts))

    async def _billed_elsewhere(self, account: str, totals: Sequence[UsageTotal], now: datetime) -> None:
        """Raise an alert, once a month and endpoint, about bills for what nobody orders through this gateway."""
        nano, units = sum(each.nano_usd for each in totals), sum(each.units for each in totals)
        endpoint, unit = totals[0].endpoint, totals[0].unit or "units"
        text = (
            f"{account} bills {to_usd(nano)} USD for {endpoint} ({units:f} {unit}), which was never ordered here. Does "
            f"somebody else use its key?"
        )
        facts = {"account": account, "endpoint": endpoint, "nano_usd": nano, "units": f"{units:f}", "unit": unit}
        await self.tell(_alert("strange_bill", (account, endpoint, f"{now:%Y-%m}"), now, text, facts))

    async def paused(self, key: KeyRow, why: PausedKey) -> None:
        """Raise an alert where a key was paused, since it spent far more than usual."""
        assert key.paused_until is not None
        named = f" ({key.name})" if key.name else ""
        text = (
            f"The key {key.id}{named} of team {key.team} is paused until {key.paused_until:%Y-%m-%d %H:%M} UTC: it "
            f"spent {to_usd(why.spent)} USD within an hour, and usually spends {to_usd(why.usual)}. If that was meant, "
            f"`pixelgate keys release {key.id}`; if not, `pixelgate keys rotate {key.id} --overlap none`."
        )
        facts = {
            "key": key.id,
            "team": key.team,
            "until": key.paused_until,
            "spent_nano_usd": why.spent,
            "usual_nano_usd": why.usual,
        }
        await self.tell(_alert("key_paused", (key.id, str(why.hour)), self._clock.utc(), text, facts))

    async def listed(self, finding: Finding) -> None:
        """Raise an alert where a seller's own list says another price than ours, or than before."""
        sold_as = ", ".join(finding.offers)
        says = "estimates" if finding.verdict == "estimate" else "lists"
        text = f"{finding.account} {says} {finding.endpoint} otherwise: {finding.says}. Sold as {sold_as}."
        if not finding.sold:
            text = f"{finding.account} no longer has {finding.endpoint}, sold as {sold_as}. `prices apply` retires it."
        facts = {
            "account": finding.account,
            "endpoint": finding.endpoint,
            "verdict": finding.verdict,
            "ours_nano_usd": finding.ours,
            "listed_nano_usd": finding.theirs,
            "unit": finding.unit,
        }
        now = self._clock.utc()
        state = (f"{finding.ours}", f"{finding.theirs}", finding.unit, "unit" if finding.verdict == "unit" else "")
        await self.tell(
            _alert("listed_price", (finding.account, finding.endpoint, *state, f"{now:%Y-%m}"), now, text, facts)
        )

    async def unusual(self, party: tuple[str, str], spent: int, usual: int) -> None:
        """Raise an alert, once a day and party, about an hour that costs far more than usual."""
        now, name = self._clock.utc(), " ".join(party).strip()
        text = (
            f"The spending of {name} is unusual: {to_usd(spent)} USD in this hour; at this time of the day up to "
            f"{to_usd(usual)} USD would not be."
        )
        facts = {"of": name, "spent_nano_usd": spent, "usual_nano_usd": usual}
        await self.tell(_alert("unusual_spend", (*party, now.date().isoformat()), now, text, facts))

    async def pressed(self, account: str, pressure: Pressure) -> None:
        """Raise an alert, once a day and account, that its limits stand in the way."""
        now = self._clock.utc()
        why = f"it had no room left at {pressure.full} of {pressure.looks} looks within an hour"
        if pressure.too_fast:
            why = f"it refused {pressure.refused} of {pressure.orders} orders for their rate (429) within an hour"
        text = f"{account} is at its limits: {why}. `pixelgate advise capacity` says what a peak needs."
        facts = {
            "account": account,
            "orders": pressure.orders,
            "refused": pressure.refused,
            "looks": pressure.looks,
            "full": pressure.full,
        }
        await self.tell(_alert("rate_pressure", (account, now.date().isoformat()), now, text, facts))

    async def stale(self, offers: Sequence[str], after: timedelta) -> None:
        """Raise an alert, once a month, about prices that nobody has looked at for long."""
        now = self._clock.utc()
        some = ", ".join(offers[:3]) + (", ..." if len(offers) > 3 else "")
        text = f"{len(offers)} prices were last looked at more than {after.days} days ago: {some}. They still count."
        facts = {"offers": list(offers), "days": after.days}
        await self.tell(_alert("stale_prices", (f"{now:%Y-%m}",), now, text, facts))

    async def changed(self, place: Sequence[str], text: str, facts: Mapping[str, object]) -> None:
        """Raise an alert where an offer no longer draws, bills or answers as it did; `place` says which, and when."""
        await self.tell(_alert("offer_changed", place, self._clock.utc(), text, facts))

    async def tell(self, alert: AlertRow) -> None:
        """Keep an alert that nobody has raised yet, and log it."""
        if await self._db.raise_alert(alert):
            log.warning("alert_raised", reason=alert.kind, detail=alert.text)

    async def deliver(self) -> None:
        """Post what each hook has not got yet, oldest first; one that refuses is left alone until the next time."""
        since = self._clock.utc() - KEPT
        for hook in self._hooks:
            for alert in await self._db.undelivered_alerts(hook.name, since):
                if not self._silenced.isdisjoint({(alert.kind, None), (alert.kind, alert.facts.get("account"))}):
                    continue
                if (why := await post(self._http, hook, alert, self._clock.utc())) is not None:
                    log.warning("alert_undelivered", reason=alert.kind, where=hook.name, detail=why)
                    break
                await self._db.alert_delivered(alert.id, hook.name, self._clock.utc())

    def _of_budget(
        self, budget: BudgetRow, counters: Mapping[str, Spending], now: datetime, *, refused: bool
    ) -> Iterator[AlertRow]:
        window, limit, once = window_at(budget, now), limit_at(budget, now), told_in(budget, now)
        for number, (word, spending) in enumerate(counters.items()):
            spent, subject = spending.held + spending.posted, f"{budget.id}/{word}"
            name = f"The budget of {about(budget)}"
            told = {"budget": budget.id, "of": about(budget), "renews": window.end}
            yield from self._levels_passed(
                (subject, once), (name, limit, spent), now, told, refused=refused and not number
            )
            if budget.soft is not None and spent >= soft_limit_at(budget, now):
                yield _soft(budget, (subject, once), (name, limit, spent), now, told)
            if budget.window in CALENDAR and not refused:
                yield from self._forecast((subject, name), window, (limit, spent), now, told)

    def _forecast(
        self,
        what: tuple[str, str],
        window: Window,
        sums: tuple[int, int],
        now: datetime,
        told: Mapping[str, object],
    ) -> Iterator[AlertRow]:
        """The hour in which a budget is spent, at the pace so far, when that is before its window ends."""
        (subject, name), (limit, spent) = what, sums
        assert window.start is not None, "a calendar's windows begin"
        assert window.end is not None, "and end"
        passed, share = (now - window.start) / (window.end - window.start), spent / limit
        if passed < _EARLY or share < _SOME or not passed < share < 1.0:
            return
        end = window.start + (window.end - window.start) * (passed / share)
        text = (
            f"{name} will be spent around {end:%Y-%m-%d %H:00} UTC at this pace: {to_usd(spent)} of {to_usd(limit)} "
            f"USD are, with {passed:.0%} of its time passed."
        )
        facts = {**told, "spent_nano_usd": spent, "limit_nano_usd": limit, "spent_by": end}
        yield _alert("budget_forecast", (subject, window.name), now, text, facts)

    def _of_life(self, kind: str, name: str, spending: Spending, now: datetime, *, refused: bool) -> Iterator[AlertRow]:
        """Levels of the budget that a key or a team has for good."""
        if not spending.budget:
            return
        place = (f"{kind}/{name}", str(spending.budget))
        sums = (f"The budget of {kind} {name}", spending.budget, spending.held + spending.posted)
        yield from self._levels_passed(place, sums, now, {kind: name}, refused=refused)

    def _levels_passed(
        self,
        place: tuple[str, str],
        sums: tuple[str, int, int],
        now: datetime,
        told: Mapping[str, object],
        *,
        refused: bool,
    ) -> Iterator[AlertRow]:
        """The levels at or below what is spent; an order that no longer fits has passed the last."""
        name, limit, spent = sums
        for level in self._levels:
            if 100 * spent < level * limit and not (refused and level <= 100):
                continue
            text = f"{name} is {level} % spent: {to_usd(spent)} of {to_usd(limit)} USD."
            if refused and level == 100 and spent < limit:
                text = f"{name} is spent: {to_usd(spent)} of {to_usd(limit)} USD are, and an order no longer fitted."
            facts = {**told, "level": level, "spent_nano_usd": spent, "limit_nano_usd": limit}
            yield _alert("budget", (*place, str(level)), now, text, facts)


def _changed(differences: Sequence[Difference]) -> Difference | None:
    """What most orders differ in, where a price or a count of units is behind it."""
    return max((each for each in differences if each.cause in _CHANGED), key=lambda each: each.orders, default=None)


def _some(endpoints: Sequence[str]) -> str:
    """The first endpoints of some, for a sentence."""
    if not endpoints:
        return ""
    return f" ({', '.join(endpoints[:3])}{', ...' if len(endpoints) > 3 else ''})"


async def post(http: Http, hook: Hook, alert: AlertRow, now: datetime) -> str | None:
    """Send one alert to one hook; why it was not taken, or None."""
    body = body_for(hook, alert)
    headers = {"Content-Type": "application/json", "X-Pixelgate-Alert": alert.id}
    if hook.secret is not None:
        headers["X-Pixelgate-Signature"] = signature(hook.secret, int(now.timestamp()), body)
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await http.send("POST", hook.url, headers=headers, data=body)
    except TimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except WireError as error:
        return f"no answer ({type(error).__name__})"
    return None if 200 <= answer.status < 300 else f"status {answer.status}"


def _soft(
    budget: BudgetRow, place: tuple[str, str], sums: tuple[str, int, int], now: datetime, told: Mapping[str, object]
) -> AlertRow:
    """That a budget is past its soft limit, and what is done about it."""
    name, limit, spent = sums
    text = (
        f"{name} is past its soft limit of {budget.soft} %: {to_usd(spent)} of {to_usd(limit)} USD. "
        f"{_DONE[budget.then]}"
    )
    facts = {**told, "soft": budget.soft, "then": budget.then, "spent_nano_usd": spent, "limit_nano_usd": limit}
    return _alert("budget_soft", (*place, str(budget.soft), budget.then), now, text.strip(), facts)


def a_test(now: datetime, kind: str = "test") -> AlertRow:
    """An alert that says nothing but its kind, to see whether hooks work and what comes after them goes by kind."""
    about = "" if kind == "test" else f": nothing has happened, but {KINDS[kind]} would be told so"
    return _alert(kind, ("test", now.isoformat()), now, f"This is a test of pixelgate's alerts{about}.", {"test": True})


def body_for(hook: Hook, alert: AlertRow) -> bytes:
    """What is posted: Slack's form, or every fact as JSON."""
    if hook.form == "slack":
        return _encode({"text": alert.text})
    return _encode({"id": alert.id, "kind": alert.kind, "at": alert.at, "text": alert.text, "facts": alert.facts})


def signature(secret: str, at: int, body: bytes) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA256 of the seconds since 1970, a full stop and the body."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, sha256).hexdigest()
    return f"t={at},v1={digest}"


def _alert(kind: str, place: Sequence[str], at: datetime, text: str, facts: Mapping[str, object]) -> AlertRow:
    """An alert whose id says what it is about: whose budget, in which window, at what level ..."""
    digest = sha256("\0".join((kind, *place)).encode()).hexdigest()[:32]
    return AlertRow(id=f"alert_{digest}", at=at, kind=kind, text=text, facts=facts)
