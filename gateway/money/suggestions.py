"""What to change, each with what was seen and what it is worth; nothing is suggested that the books do not show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import isqrt

from msgspec import Struct

from gateway.money.periods import MONTH_DAYS
from gateway.money.savings import request_of
from gateway.storage.activity import Activity, Drawn, Spent
from policies.catalog import Catalog
from policies.money import to_usd
from policies.offer_prices import quote_at
from policies.offline.elsewhere import cheapest
from policies.tariffs import FirstMegapixel, PerMegapixel, Unpriced
from policies.types import Offer, Tier
from providers.contract import ImageRequest

NEGOTIATE_FROM = 50_000
"""Pictures a month at one account from which sellers speak about the price."""

REBATE_PERCENT = 5
"""What a first volume discount usually is; the value of negotiating is shown for this much."""

ENOUGH = 20
"""Previews from which their rate of promotion means something."""

FETCHERS = 0.5
"""Share of its pictures that a team fetches from which one that is not fetched means that nobody looked."""

JUST_ABOVE = 0.15
"""Share of a megapixel above a whole number that is taken for a size chosen without looking at the price."""

_GRID = 16
"""Sizes are suggested in steps that every seller draws."""


class Suggestion(Struct, frozen=True, kw_only=True):
    """One thing to change."""

    name: str
    do: str
    evidence: str
    nano_usd: int | None
    """What it would have saved within the period; None where the books cannot tell."""
    per_month: int | None
    """The same for a month at this pace."""


class Prepaid(Struct, frozen=True, kw_only=True):
    """What is left of credit that was paid for ahead. Money is nano-dollars."""

    account: str
    lot: str
    left: int
    days: float | None
    """Until the rest of it is lost; None: never."""


class Compared(Struct, frozen=True, kw_only=True):
    """A seller that an experiment found to be no worse, and better in something."""

    experiment: str
    challenger: str
    says: str
    """What was measured, in a sentence."""
    saved_a_month: int
    """Nano-dollars, by the calls of the last days."""


def suggestions(
    activity: Activity,
    catalog: Catalog,
    months: float,
    prepaid: Sequence[Prepaid] = (),
    compared: Sequence[Compared] = (),
) -> Sequence[Suggestion]:
    """Everything worth doing, dearest first; `months` is how much of a month the activity covers.

    `prepaid` is what is left of each account's credit, in the order in which it is drawn from; `compared` are the
    experiments that say *switch*.
    """
    found = [
        *_preview_first(activity, catalog, months),
        *_keep_repeats(activity, months),
        *_negotiate(activity, months),
        *_smaller_sizes(activity, catalog, months),
        *_billed_failures(activity, months),
        *_never_fetched(activity, months),
        *_prepaid(activity, prepaid, months),
        *_switch(compared, months),
        *_unknown_costs(activity),
    ]
    return sorted(found, key=lambda each: -(each.nano_usd or 0))


def _worth(name: str, do: str, evidence: str, nano: int, months: float) -> Suggestion:
    return Suggestion(name=name, do=do, evidence=evidence, nano_usd=nano, per_month=round(nano / months))


def _preview_first(activity: Activity, catalog: Catalog, months: float) -> Iterator[Suggestion]:
    """Pictures of the export tier that no preview led to."""
    direct, previews, preview_cost = Spent(), 0, 0
    drafts = [offer for offer in catalog.offers.values() if offer.tier is Tier.PREVIEW]
    for drawn, spent in activity.drawn.items():
        offer = catalog.offers.get(drawn.offer_id)
        if offer is None or drawn.operation != "generate":
            continue
        if offer.tier is Tier.PREVIEW:
            previews += spent.images
        draft = cheapest(drafts, request_of(drawn)) if offer.tier is Tier.EXPORT and not drawn.promoted else None
        if draft is not None:
            direct.add(spent)
            preview_cost += draft.amount * spent.orders
    if not direct.cost:
        return
    seen = f"{direct.images} pictures of the export tier cost ${to_usd(direct.cost)} and came from no preview"
    do = "Draw previews first and promote the ones that are kept."
    if previews < ENOUGH:
        share = max(direct.cost - preview_cost, 0) / direct.cost
        evidence = f"{seen}; it pays when fewer than {share:.0%} of the previews are promoted, a share not seen yet"
        yield Suggestion(name="preview-first", do=do, evidence=evidence, nano_usd=None, per_month=None)
        return
    kept = min(activity.promoted_from, previews)
    saved = direct.cost - preview_cost - direct.cost * kept // previews
    if saved > 0:
        evidence = f"{seen}; of {previews} previews {kept} were promoted ({kept / previews:.0%})"
        yield _worth("preview-first", do, evidence, saved, months)


def _switch(compared: Sequence[Compared], months: float) -> Iterator[Suggestion]:
    """Calls that could go to a cheaper seller, as copies of them have shown."""
    for each in compared:
        if each.saved_a_month > 0:
            do = f"Adopt {each.challenger}: `shadow adopt {each.experiment} --challenger {each.challenger}`."
            yield Suggestion(
                name="switch-seller",
                do=do,
                evidence=f"experiment {each.experiment}: {each.says}",
                nano_usd=round(each.saved_a_month * months),
                per_month=each.saved_a_month,
            )


def _keep_repeats(activity: Activity, months: float) -> Iterator[Suggestion]:
    repeats = activity.repeats
    if repeats.cost:
        evidence = (
            f"{repeats.orders} orders asked for what the same team had already had drawn in this period "
            f"({repeats.distinct} requests; the most frequent {repeats.most} times, {repeats.example} among them)"
        )
        do = "Keep and show the first answer, or send an Idempotency-Key; a seed makes a wanted variation explicit."
        yield _worth("repeated-requests", do, evidence, repeats.cost, months)


def _negotiate(activity: Activity, months: float) -> Iterator[Suggestion]:
    accounts: defaultdict[str, Spent] = defaultdict(Spent)
    for source, spent in activity.posted.items():
        accounts[source.account].add(spent)
    for account, spent in accounts.items():
        monthly = spent.images / months
        if account and monthly > NEGOTIATE_FROM and spent.cost > 0:
            evidence = f"{monthly:,.0f} pictures a month at this pace; the value is that of {REBATE_PERCENT} % off"
            do = f"Negotiate with {account}: sellers give volume prices above {NEGOTIATE_FROM:,} pictures a month."
            yield _worth(f"negotiate-{account}", do, evidence, spent.cost * REBATE_PERCENT // 100, months)


def _smaller_sizes(activity: Activity, catalog: Catalog, months: float) -> Iterator[Suggestion]:
    """Sizes a little above a whole megapixel where each picture is rounded up."""
    saved, orders, examples = 0, 0, []
    for drawn, spent in activity.drawn.items():
        offer = catalog.offers.get(drawn.offer_id)
        smaller = None if offer is None else _just_below(offer, drawn)
        if offer is None or smaller is None or drawn.operation != "generate":
            continue
        try:
            less = quote_at(offer, request_of(drawn)).amount - quote_at(offer, smaller).amount
        except Unpriced:
            continue
        if less > 0:
            saved, orders = saved + less * spent.orders, orders + spent.orders
            size = f"{drawn.width}x{drawn.height} at {offer.id} could be {smaller.width}x{smaller.height}"
            examples.append((less * spent.orders, size))
    if saved:
        evidence = f"{orders} orders lay just above a whole megapixel: " + "; ".join(
            text for _, text in sorted(examples, reverse=True)[:3]
        )
        do = "Ask for sizes that end below a whole megapixel where the seller rounds up."
        yield _worth("size-just-above", do, evidence, saved, months)


def _just_below(offer: Offer, drawn: Drawn) -> ImageRequest | None:
    """The same shape within the megapixels below, when it is that near."""
    tariff = offer.tariff
    rounds_up = isinstance(tariff, FirstMegapixel) or (isinstance(tariff, PerMegapixel) and tariff.rounding == "up")
    if not rounds_up or not isinstance(tariff, PerMegapixel | FirstMegapixel):
        return None
    area = drawn.width * drawn.height
    whole, above = divmod(area, tariff.pixels)
    if not whole or not 0 < above <= JUST_ABOVE * tariff.pixels:
        return None
    room = whole * tariff.pixels
    width = isqrt(room * drawn.width // drawn.height) // _GRID * _GRID
    height = room // width // _GRID * _GRID
    able = offer.abilities.sizes.allows(width, height)
    return ImageRequest(width=width, height=height, count=drawn.images, steps=drawn.steps) if able else None


def _billed_failures(activity: Activity, months: float) -> Iterator[Suggestion]:
    for account, spent in activity.failed.items():
        evidence = f"{spent.orders} orders at {account} were billed and delivered nothing a team could be charged for"
        do = f"Ask {account} for a refund, or send it less of what it refuses after billing."
        yield _worth(f"billed-failures-{account}", do, evidence, spent.cost, months)


def _never_fetched(activity: Activity, months: float) -> Iterator[Suggestion]:
    """Pictures nobody fetched, of teams that fetch most of theirs here; others get theirs within the answer."""
    by_team: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (team, _), each in activity.fetched.items():
        by_team[team][0] += each.kept
        by_team[team][1] += each.fetched
    kept, fetched, wasted = defaultdict[str, int](int), defaultdict[str, int](int), defaultdict[str, int](int)
    for (team, tier), each in activity.fetched.items():
        of_team, fetched_by_team = by_team[team]
        if of_team >= ENOUGH and fetched_by_team >= FETCHERS * of_team:
            kept[tier] += each.kept
            fetched[tier] += each.fetched
            wasted[tier] += each.wasted
    for tier, nano in wasted.items():
        if nano > 0:
            evidence = f"{kept[tier] - fetched[tier]} of {kept[tier]} pictures of the {tier} tier were never fetched"
            do = f"Draw fewer pictures of the {tier} tier: nobody looks at these."
            if tier == Tier.EXPORT.word:
                do = "Draw previews, and export the ones that are wanted: nobody looks at these exports."
            yield _worth(f"never-fetched-{tier}", do, evidence, nano, months)


def _prepaid(activity: Activity, prepaid: Sequence[Prepaid], months: float) -> Iterator[Suggestion]:
    """Credit that will be lost at this pace, and credit that nobody draws from."""
    pace: defaultdict[str, int] = defaultdict(int)
    for source, spent in activity.posted.items():
        pace[source.account] += spent.cost
    drawn: defaultdict[str, float] = defaultdict(float)
    for each in prepaid:
        monthly = max(pace[each.account], 0) / months
        name, left = f"credit-{each.account}-{each.lot}", f"${to_usd(each.left)} of {each.lot} at {each.account}"
        if each.days is None:
            if not monthly:
                do = f"Send orders to {each.account} that it draws as cheaply as others, or ask for the money back."
                evidence = f"{left} is paid for, and nothing was ordered there"
                yield Suggestion(name=name, do=do, evidence=evidence, nano_usd=each.left, per_month=None)
            continue
        until = monthly * each.days / MONTH_DAYS - drawn[each.account]
        lost = round(each.left - max(until, 0.0))
        drawn[each.account] += min(each.left, max(until, 0.0))
        if lost > 0:
            do = f"Send more to {each.account} before {each.lot} ends, or ask for more time; buy less next time."
            evidence = f"{left} ends in {each.days:.0f} days; at ${to_usd(round(monthly))} a month this much is lost"
            yield Suggestion(name=name, do=do, evidence=evidence, nano_usd=lost, per_month=None)


def _unknown_costs(activity: Activity) -> Iterator[Suggestion]:
    for account, held in activity.suspended.items():
        evidence = f"{held.orders} orders at {account} hold ${to_usd(held.held)} because nobody knows what they cost"
        do = "Run `ledger reconcile`; what the seller's report does not tell must be asked for."
        yield Suggestion(name=f"unknown-costs-{account}", do=do, evidence=evidence, nano_usd=None, per_month=None)
