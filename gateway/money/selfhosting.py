"""Whether machines of our own would pay for one model: what was seen or said, put through the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.storage.activity import Activity
from policies.catalog import Catalog
from policies.money import to_usd
from policies.offline import breakeven
from policies.offline.breakeven import (
    HOURS_PER_MONTH,
    Plan,
    Split,
    best_by_the_hour,
    best_split,
    break_even_hour,
    break_even_month,
)
from policies.offline.elsewhere import cheapest
from policies.offline.throughput import STEPS, USUAL_SHARE, Throughput, doubt, throughput
from policies.tariffs import MachineSecond, by_time
from providers.contract import ImageRequest

ENOUGH = 100
"""Orders from which a measured pace is worth more than arithmetic."""

_HOURS_OF_WEEK = 168


class Question(Struct, frozen=True, kw_only=True):
    """What is asked. Money is nano-dollars."""

    model: str
    width: int
    height: int
    steps: int | None = None
    hour: int
    """What an hour of one machine costs."""
    images_per_hour: Fraction | None = None
    """As stated; None: as measured, else by arithmetic."""
    peak: Fraction
    share: Fraction = USUAL_SHARE
    utilisation: Fraction = Fraction(7, 10)
    engineering: int = 0
    licence: breakeven.WeightsLicence = breakeven.WeightsLicence()
    cold_start_s: Fraction = Fraction(0)
    starts: int = 0
    price: int | None = None
    """What a bought picture costs; None: as paid, else as listed."""
    images_per_month: int | None = None
    """Spread over `hours_a_day`; None: as the traffic was."""
    hours_a_day: int = 24


class Pace(Struct, frozen=True, kw_only=True):
    """How many pictures an hour one machine draws, and how that is known."""

    images_per_hour: Fraction
    known: Literal["stated", "measured", "arithmetic"]
    orders: int = 0
    doubt: str | None = None
    arithmetic: Throughput | None = None


class Bought(Struct, frozen=True, kw_only=True):
    """What a picture costs at sellers, in nano-dollars, and how that is known."""

    price: int
    known: str


class Advice(Struct, frozen=True, kw_only=True):
    """The answer. Money is nano-dollars; a month is 730.5 hours."""

    pace: Pace
    bought: Bought
    images_per_month: int
    marginal: int
    marginal_by_second: int
    """The same on a machine that is paid by the second."""
    full_load: int
    effective: int | None
    """A picture of machines that are always on, at this demand."""
    all_in: int | None
    """With engineering, licence and cold starts."""
    licence_month: int
    licence_per_image: int | None
    break_even_per_hour: Fraction | None
    break_even_per_month: int | None
    """Pictures a month from which one machine alone pays."""
    break_even_all_in: int | None
    """The same with engineering, licence and cold starts; None: never."""
    machines: int
    split: Split
    """Machines that are always on."""
    by_the_hour: Split
    """Machines that are switched on and off with the demand, as those rented by the hour or the second can be."""
    split_months: Fraction
    """How many months the hours of the split are."""
    verdict: str
    sure: Sequence[str]
    """What the answer rests on, and what would change it."""


def advise(question: Question, activity: Activity, catalog: Catalog, hours: int) -> Advice:
    """Answer from the last `hours` of traffic, or for the volume that is asked about. Raises `InvalidRequest`."""
    pace, bought = pace_of(question, activity, catalog), bought_at(question, activity, catalog)
    demand = _demand(question, activity, hours)
    monthly = question.images_per_month
    if monthly is None:
        monthly = round(sum(demand) / Fraction(len(demand)) * HOURS_PER_MONTH) if demand else 0
    alone = Plan(hour=question.hour, images_per_hour=pace.images_per_hour, utilisation=question.utilisation)
    plan = Plan(
        hour=question.hour,
        images_per_hour=pace.images_per_hour,
        utilisation=question.utilisation,
        engineering=question.engineering,
        licence=question.licence,
        cold_start=question.cold_start_s / 3600,
        starts=question.starts,
    )
    machines = plan.machines(monthly)
    split, by_the_hour = best_split(plan, bought.price, demand), best_by_the_hour(plan, bought.price, demand)
    licence_month = question.licence.month(monthly)
    all_in = breakeven.per_image(plan.month(monthly), monthly)
    return Advice(
        pace=pace,
        bought=bought,
        images_per_month=monthly,
        marginal=breakeven.marginal(question.hour, Fraction(3600) / pace.images_per_hour, always_on=True),
        marginal_by_second=breakeven.marginal(question.hour, Fraction(3600) / pace.images_per_hour, always_on=False),
        full_load=breakeven.full_load(question.hour, pace.images_per_hour),
        effective=breakeven.effective(question.hour, machines * HOURS_PER_MONTH, monthly),
        all_in=all_in,
        licence_month=licence_month,
        licence_per_image=breakeven.per_image(licence_month, monthly),
        break_even_per_hour=break_even_hour(question.hour, bought.price),
        break_even_per_month=break_even_month(alone, bought.price),
        break_even_all_in=break_even_month(plan, bought.price),
        machines=machines,
        split=split,
        by_the_hour=by_the_hour,
        split_months=len(demand) / HOURS_PER_MONTH,
        verdict=_verdict(split, by_the_hour),
        sure=_sure(question, pace, bought, catalog),
    )


def pace_of(question: Question, activity: Activity, catalog: Catalog) -> Pace:
    """As stated, as measured at our own machines, or by arithmetic, in this order."""
    able = None
    steps = question.steps or STEPS.get(question.model)
    if question.model in STEPS and steps is not None:
        able = throughput(question.width, question.height, steps, question.peak, question.share)
    stated = question.images_per_hour
    if stated is not None:
        doubtful = doubt(stated, able) if able else None
        return Pace(images_per_hour=stated, known="stated", doubt=doubtful, arithmetic=able)
    images, orders, machine_hours = _measured(question, activity, catalog)
    if orders >= ENOUGH and machine_hours:
        return Pace(images_per_hour=images / machine_hours, known="measured", orders=orders, arithmetic=able)
    if able is None:
        raise InvalidRequest(
            f"Invalid 'images-per-hour': nothing is known of {question.model} at "
            f"{question.width}x{question.height}; say how many a machine draws.",
            param="images-per-hour",
        )
    return Pace(images_per_hour=able.likely, known="arithmetic", orders=orders, arithmetic=able)


def bought_at(question: Question, activity: Activity, catalog: Catalog) -> Bought:
    """As stated, as paid for this model and size, or the cheapest listed offer, in this order."""
    if question.price is not None:
        return Bought(price=question.price, known="as stated")
    listed = [offer for offer in catalog.for_sale() if offer.model == question.model and not by_time(offer.tariff)]
    ids = {offer.id for offer in listed}
    cost = images = 0
    for drawn, spent in activity.drawn.items():
        if (
            drawn.operation == "generate"
            and drawn.offer_id in ids
            and (drawn.width, drawn.height) == (question.width, question.height)
        ):
            cost, images = cost + spent.cost, images + spent.images
    if images >= ENOUGH:
        return Bought(price=round(Fraction(cost, images)), known=f"paid for {images:,} pictures")
    request = ImageRequest(width=question.width, height=question.height, steps=question.steps)
    found = cheapest(listed, request, question.model)
    if found is None:
        raise InvalidRequest(
            f"Invalid 'price': no seller in the catalogue draws {question.model} at "
            f"{question.width}x{question.height}; say what a bought picture costs.",
            param="price",
        )
    return Bought(price=found.amount, known=f"listed by {found.offer}")


def _measured(question: Question, activity: Activity, catalog: Catalog) -> tuple[int, int, Fraction]:
    """Pictures, orders and machine hours at own machines: the ledger's cost over the price of an hour."""
    images, orders, hours = 0, 0, Fraction(0)
    for drawn, spent in activity.drawn.items():
        offer = catalog.offers.get(drawn.offer_id)
        same = (drawn.width, drawn.height) == (question.width, question.height)
        steps = question.steps is None or drawn.steps in (None, question.steps)
        if offer is None or offer.model != question.model or not (same and steps):
            continue
        if isinstance(offer.tariff, MachineSecond) and offer.tariff.nano_usd_per_hour:
            images, orders = images + spent.images, orders + spent.orders
            hours += Fraction(spent.cost, offer.tariff.nano_usd_per_hour)
    return images, orders, hours


def _demand(question: Question, activity: Activity, hours: int) -> Sequence[int]:
    """Pictures for each hour: as they were drawn, or a week of the volume that is asked about."""
    monthly = question.images_per_month
    if monthly is None:
        drawn: dict[int, int] = {}
        for (hour, offer_id), images in activity.hours.items():
            if offer_id.partition(":")[2] == question.model:
                drawn[hour] = drawn.get(hour, 0) + images
        return [*drawn.values(), *[0] * max(hours - len(drawn), 0)]
    busy = 7 * question.hours_a_day
    each, rest = divmod(round(monthly * _HOURS_OF_WEEK / HOURS_PER_MONTH), busy)
    return [
        0 if hour % 24 >= question.hours_a_day else each + (hour // 24 * question.hours_a_day + hour % 24 < rest)
        for hour in range(_HOURS_OF_WEEK)
    ]


def _verdict(always: Split, by_the_hour: Split) -> str:
    best = min(always, by_the_hour, key=lambda split: split.cost)
    if not best.machines:
        return "Buy every picture: no number of machines would cost less."
    machines = f"{best.machines} machine{'s' * (best.machines > 1)}"
    when = "always on" if best is always else "switched on and off with the demand"
    if not best.bought_images:
        return f"Own: {machines}, {when}, draw everything for less than it costs to buy."
    return f"Mix: {machines}, {when}, for the base of the demand, sellers for the rest."


def _sure(question: Question, pace: Pace, bought: Bought, catalog: Catalog) -> Sequence[str]:
    """What the answer rests on, in sentences."""
    remarks = []
    if pace.known == "measured":
        remarks.append(f"The pace was measured over {pace.orders:,} orders of this model and size.")
    elif pace.known == "arithmetic":
        remarks.append(
            f"The pace is arithmetic: {float(question.share):.0%} of the card's peak, where servers differ by kernels, "
            f"batches and precision. Have {ENOUGH} orders drawn there and ask again."
        )
    elif pace.doubt is not None:
        remarks.append(f"The stated pace is doubtful: {pace.doubt}.")
        if pace.arithmetic is not None:
            likely = breakeven.full_load(question.hour, pace.arithmetic.likely)
            remarks.append(f"At the likely pace a picture of a machine that never idles costs ${to_usd(likely)}.")
    else:
        remarks.append("The pace is what was stated; nothing here has measured it.")
    remarks.append(
        "Break-even an hour does not depend on the pace, as long as the machine can draw that many."
        if question.hour <= pace.images_per_hour * bought.price
        else "One machine cannot draw the pictures an hour from which it would pay."
    )
    info = catalog.models.get(question.model)
    if info is not None and not info.licence.commercial and not question.licence.fee:
        remarks.append(
            f"The weights are under {info.licence.name}: pictures for commercial use need a licence, which is not in "
            "these sums (--licence-fee, --licence-included, --licence-overage)."
        )
    if question.images_per_month is not None and question.hours_a_day == 24:
        remarks.append("The volume is spread evenly over the day; real days have peaks, which favour a mix.")
    return remarks
