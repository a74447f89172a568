"""`pixelgate advise`: whether to own machines, and how much of everything a peak needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil

from cyclopts import Parameter
from pydantic_core import PydanticCustomError

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, table
from gateway.money.currency import Currency
from gateway.money.selfhosting import Advice, Question, advise
from gateway.revisions import load_revision
from gateway.settings import Settings
from gateway.storage.activity import Activity
from policies.latency_forecast import work
from policies.offer_prices import quote_at
from policies.offline.breakeven import Split, WeightsLicence
from policies.offline.elsewhere import fits
from policies.offline.queueing import Slots, slots_for
from policies.offline.throughput import CARDS, USUAL_SHARE
from policies.policy_file.values import parse_dollars, parse_duration
from policies.tariffs import Unpriced, by_time
from policies.types import Offer
from providers.contract import ImageRequest


@Parameter(name="*", group="The machine")
@dataclass(frozen=True)
class Machine:
    """The machines that would be ours."""

    gpu_hour: str = "$0.34"
    """What an hour of one machine costs, busy or idle."""
    images_per_hour: float | None = None
    """What one machine draws; as measured, else by arithmetic, when left out."""
    gpu: str = "rtx-4090"
    """Card for the arithmetic: rtx-4090 or h200."""
    peak_tflops: float | None = None
    """Peak bf16 TFLOP/s of another card."""
    share: float = float(USUAL_SHARE)
    """Share of that peak a server reaches."""
    utilisation: float = 0.7
    """Share of a machine's pictures that may be planned with."""
    cold_start: str = "60s"
    """What a start takes before the first picture."""
    starts: int = 0
    """Cold starts a month."""


@Parameter(name="*", group="Each month")
@dataclass(frozen=True)
class Monthly:
    """What a month costs beside the machines."""

    engineering: str = "$3000"
    """People who keep it running; market texts say $3,000 to $10,000."""
    licence_fee: str = "$0"
    """Fee for the weights."""
    licence_included: int = 0
    """Pictures that the fee covers."""
    licence_overage: str = "$0"
    """For each picture beyond."""


MACHINE = Machine()
MONTHLY = Monthly()


def selfhost(  # noqa: PLR0913 - the terms of a question
    *,
    model: str = "flux-dev",
    size: str = "1024x1024",
    steps: int | None = None,
    images_per_month: int | None = None,
    hours_a_day: int = 24,
    days: int = 30,
    price: str | None = None,
    machine: Machine = MACHINE,
    monthly: Monthly = MONTHLY,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Work out whether GPUs of your own would pay for a model. Exit code 1: there was no traffic to judge.

    Parameters
    ----------
    model
        The model that would run on them.
    size
        WIDTHxHEIGHT in pixels.
    steps
        Steps of the model; its usual number when left out.
    images_per_month
        Volume to plan for; your own traffic of the last days when left out.
    hours_a_day
        Hours over which that volume is spread.
    days
        How much of your own traffic to look at.
    price
        What a bought picture costs; as paid, else as listed, when left out.
    """
    width, height = _size(size)
    _at_least("--days", days, 1)
    _at_least("--hours-a-day", hours_a_day, 1, 24)
    if images_per_month is not None:
        _at_least("--images-per-month", images_per_month, 1)
    question = Question(
        model=model,
        width=width,
        height=height,
        steps=steps,
        hour=_dollars("--gpu-hour", machine.gpu_hour),
        images_per_hour=None
        if machine.images_per_hour is None
        else _ratio("--images-per-hour", machine.images_per_hour),
        peak=_peak(machine),
        share=_ratio("--share", machine.share, 1),
        utilisation=_ratio("--utilisation", machine.utilisation, 1),
        engineering=_dollars("--engineering", monthly.engineering),
        licence=WeightsLicence(
            fee=_dollars("--licence-fee", monthly.licence_fee),
            included=monthly.licence_included,
            overage=_dollars("--licence-overage", monthly.licence_overage),
        ),
        cold_start_s=Fraction(_seconds("--cold-start", machine.cold_start)),
        starts=machine.starts,
        price=None if price is None else _dollars("--price", price),
        images_per_month=images_per_month,
        hours_a_day=hours_a_day,
    )
    settings = where.settings()
    catalog = load_revision(settings, every_account=True).catalog
    if model not in catalog.models:
        raise Stop(f"--model {model}: no such model; see `quote`")
    activity = _traffic(settings, days, needed=images_per_month is None)
    found = advise(question, activity, catalog, days * 24)
    if not found.images_per_month:
        raise Stop(f"no picture of {model} was drawn in the last {days} days; --images-per-month says a volume", code=1)
    if json:
        print_json(_shape(found))
    else:
        print("\n".join(_text(question, found)))
    return 0


def capacity(  # noqa: PLR0913 - the terms of a forecast
    *,
    peak: str,
    model: str = "flux-schnell",
    size: str = "1024x1024",
    hours: float = 1.0,
    wait: str = "2s",
    on_time: float = 0.95,
    images_per_hour: float | None = None,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Work out what a forecast peak needs: slots, credit and GPUs. Exit code 1: no account that is on has them.

    Slots by Erlang's C formula: orders come at random and wait in one line for each offer.

    Parameters
    ----------
    peak
        Pictures in a time, one order each: 600/h, 40/min, 3/s.
    model
        The model they are of.
    size
        WIDTHxHEIGHT in pixels.
    hours
        How long the peak lasts, for the credit.
    wait
        Longest that an order should wait for a slot.
    on_time
        Share of orders that should wait no longer.
    images_per_hour
        What one GPU of yours draws; by its typical seconds when left out.
    """
    per_second = _rate(peak)
    longest = _seconds("--wait", wait)
    width, height = _size(size)
    if not 0 < on_time < 1:
        raise Stop(f"--on-time {on_time:g}: a share above 0 and below 1")
    if not hours > 0:
        raise Stop(f"--hours {hours:g}: above 0")
    if images_per_hour is not None:
        _ratio("--images-per-hour", images_per_hour)
    revision = load_revision(where.settings(), every_account=True)
    if model not in revision.catalog.models:
        raise Stop(f"--model {model}: no such model; see `quote`")
    request = ImageRequest(width=width, height=height)
    rows = []
    for offer in revision.catalog.by_model[model]:
        if fits(offer, request):
            limits = [revision.catalog.capacities[name] for name in offer.capacities]
            slots = next((limit.slots for limit in limits if limit.slots is not None), None)
            rate = next((limit.rate for limit in limits if limit.rate is not None), None)
            rows.append(
                _needs(offer, request, _Peak(per_second, longest, on_time, hours, images_per_hour), slots, rate)
            )
    if not rows:
        raise Stop(f"nobody in the catalogue draws {model} at {size}", code=1)
    if json:
        print_json({"per_second": per_second, "offers": rows})
    else:
        _print_needs(rows)
    return 0 if any(row["enough"] for row in rows) else 1


@dataclass(frozen=True)
class _Peak:
    per_second: float
    wait: float
    on_time: float
    hours: float
    images_per_hour: float | None


def _needs(
    offer: Offer, request: ImageRequest, peak: _Peak, slots: int | None, rate: float | None
) -> dict[str, object]:
    pixels, usual = request.width * request.height, offer.abilities.default_steps
    seconds = offer.typical_s * work(pixels, 1, None, usual)
    own = by_time(offer.tariff)
    if own and peak.images_per_hour:
        seconds = 3600 / peak.images_per_hour
    try:
        need: Slots = slots_for(peak.per_second, seconds, peak.wait, peak.on_time)
        price = quote_at(offer, request).amount
    except (ValueError, Unpriced) as error:
        raise Stop(f"--peak: {offer.id} cannot be planned for: {error}", code=1) from None
    images = ceil(peak.per_second * 3600 * peak.hours)
    return {
        "offer": offer.id,
        "seconds": round(seconds, 3),
        "load": round(need.load, 2),
        "slots": need.slots,
        "slots_now": slots,
        "rate_now": rate,
        "busy": round(need.busy, 3),
        "late": round(need.late, 4),
        "gpus": need.slots if own else None,
        "credit_nano_usd": price * images,
        "images": images,
        "enough": (slots is None or slots >= need.slots) and (rate is None or rate >= peak.per_second),
    }


def _print_needs(rows: list[dict[str, object]]) -> None:
    shown: list[tuple[str, ...]] = [("offer", "s each", "in flight", "slots", "now", "rate now", "GPUs", "credit", "")]
    for row in rows:
        credit = row["credit_nano_usd"]
        assert isinstance(credit, int)
        rate, gpus = row["rate_now"], row["gpus"]
        shown.append(
            (
                str(row["offer"]), str(row["seconds"]), str(row["load"]), str(row["slots"]),
                "any" if row["slots_now"] is None else str(row["slots_now"]),
                "any" if rate is None else f"{rate}/s", "-" if gpus is None else str(gpus), dollars(credit),
                "enough" if row["enough"] else "too little",
            )
        )  # fmt: skip
    print(table(shown, right=frozenset(range(1, 8))))


def _traffic(settings: Settings, days: int, *, needed: bool) -> Activity:
    """What was drawn lately; nothing where no gateway ran and nobody asks for it."""
    try:
        db = open_records(settings)
    except Stop:
        if needed:
            raise
        return Activity()

    async def read() -> Activity:
        try:
            now = datetime.now(UTC)
            return await db.activity(now - timedelta(days=days), now, UTC)
        finally:
            await db.aclose()

    return run_async(read())


def _text(question: Question, found: Advice) -> list[str]:
    pace, split = found.pace, found.split
    known = {"stated": "as stated", "measured": f"measured over {pace.orders:,} orders", "arithmetic": "by arithmetic"}
    able = pace.arithmetic
    likely = f"; arithmetic allows {float(able.likely):,.0f}, at most {float(able.most):,.0f}" if able else ""
    each, hour = f"{float(pace.images_per_hour):,.0f} pictures an hour", dollars(question.hour)
    even = (
        f"a month of one machine alone {_count(found.break_even_per_month)}, all in {_count(found.break_even_all_in)}"
    )
    by_second = f"{dollars(found.marginal_by_second)} where it is paid by the second"
    beside = f"with engineering ({dollars(question.engineering)} a month), licence and cold starts"
    rows = [
        ("one machine", f"{each} at {hour}, {known[pace.known]}{likely}"),
        ("bought", f"{dollars(found.bought.price)} a picture, {found.bought.known}"),
        (
            "demand",
            f"{found.images_per_month:,} pictures a month, evenly drawn the work of {found.machines} machine(s)",
        ),
        ("", ""),
        ("marginal", f"{dollars(found.marginal)} a picture more on a machine that is on; {by_second}"),
        ("full load", f"{dollars(found.full_load)} a picture of a machine that never idles"),
        ("effective", f"{dollars(found.effective)} a picture of machines that are always on, at this demand"),
        ("all in", f"{dollars(found.all_in)} a picture {beside}"),
        ("licence", f"{dollars(found.licence_month)} a month, {dollars(found.licence_per_image)} a picture"),
        ("", ""),
        ("break-even", f"{_count(found.break_even_per_hour)} pictures an hour; {even}"),
        ("always on", _mix(found, split)),
        ("by the hour", _mix(found, found.by_the_hour)),
        ("bought", f"{_monthly(found, split.bought_only)} a month for everything"),
    ]
    head = f"{question.model} at {question.width}x{question.height} on GPUs of your own"
    return [head, "", table(rows), "", found.verdict, *(f"- {remark}" for remark in found.sure)]


def _mix(found: Advice, split: Split) -> str:
    if not split.machines:
        return "no machine would pay"
    own, every = (_each_month(found, images) for images in (split.own_images, split.own_images + split.bought_images))
    hours, starts = _each_month(found, split.machine_hours), _each_month(found, split.starts)
    switched = f" and {starts:,} starts" if starts else ""
    machines = f"at most {split.machines} machine(s), {hours:,} hours{switched}"
    return f"{_monthly(found, split.cost)} a month: {machines}, {own:,} of {every:,} pictures"


def _each_month(found: Advice, amount: int) -> int:
    return round(amount / found.split_months) if found.split_months else amount


def _monthly(found: Advice, nano: int) -> str:
    return Currency().shown(_each_month(found, nano))


def _count(value: Fraction | int | None) -> str:
    if value is None:
        return "never"
    return f"{value:,}" if isinstance(value, int) else f"{float(value):,.1f}"


def _shape(found: Advice) -> dict[str, object]:
    pace = found.pace
    return {
        "images_per_hour": float(pace.images_per_hour),
        "pace_known": pace.known,
        "pace_orders": pace.orders,
        "pace_doubt": pace.doubt,
        "pace_at_most": float(pace.arithmetic.most) if pace.arithmetic else None,
        "pace_likely": float(pace.arithmetic.likely) if pace.arithmetic else None,
        "bought_nano_usd": found.bought.price,
        "bought_known": found.bought.known,
        "images_per_month": found.images_per_month,
        "machines": found.machines,
        "marginal_nano_usd": found.marginal,
        "marginal_by_second_nano_usd": found.marginal_by_second,
        "full_load_nano_usd": found.full_load,
        "effective_nano_usd": found.effective,
        "all_in_nano_usd": found.all_in,
        "licence_month_nano_usd": found.licence_month,
        "licence_per_image_nano_usd": found.licence_per_image,
        "break_even_per_hour": None if found.break_even_per_hour is None else float(found.break_even_per_hour),
        "break_even_per_month": found.break_even_per_month,
        "break_even_all_in": found.break_even_all_in,
        "split_months": float(found.split_months),
        "always_on": _split_shape(found.split),
        "by_the_hour": _split_shape(found.by_the_hour),
        "verdict": found.verdict,
        "sure": found.sure,
    }


def _split_shape(split: Split) -> dict[str, object]:
    return {
        "machines": split.machines,
        "machine_hours": split.machine_hours,
        "starts": split.starts,
        "own_images": split.own_images,
        "bought_images": split.bought_images,
        "cost_nano_usd": split.cost,
        "bought_only_nano_usd": split.bought_only,
        "saved_nano_usd": split.saved,
    }


def _size(text: str) -> tuple[int, int]:
    width, by, height = text.lower().partition("x")
    if not (by and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise Stop(f"--size {text}: WIDTHxHEIGHT in pixels, such as 1024x1024")
    return int(width), int(height)


def _rate(text: str) -> float:
    """Orders a second out of 600/h, 40/min or 3/s."""
    number, _, unit = text.partition("/")
    per = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600}.get(unit.strip())
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if per is None or not 0 < value < 1e9:
        raise Stop(f"--peak {text}: pictures in a time, such as 600/h, 40/min or 3/s")
    return value / per


def _peak(machine: Machine) -> Fraction:
    if machine.peak_tflops is not None:
        return _ratio("--peak-tflops", machine.peak_tflops)
    if machine.gpu not in CARDS:
        raise Stop(f"--gpu {machine.gpu}: known are {', '.join(CARDS)}; for another card say --peak-tflops")
    return CARDS[machine.gpu]


def _ratio(option: str, value: float, most: float = 1e9) -> Fraction:
    if not 0 < value <= most:
        raise Stop(f"{option} {value:g}: above 0{'' if most == 1e9 else f' and at most {most:g}'}")
    return Fraction(str(value))


def _at_least(option: str, value: int, least: int, most: int = 10**12) -> None:
    if not least <= value <= most:
        raise Stop(f"{option} {value}: from {least} to {most:,}")


def _dollars(option: str, text: str) -> int:
    if text.removeprefix("$").strip("0.") == "":
        return 0
    try:
        return parse_dollars(text)
    except PydanticCustomError as error:
        raise Stop(f"{option}: {error.message()}") from None


def _seconds(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except PydanticCustomError as error:
        raise Stop(f"{option}: {error.message()}") from None
