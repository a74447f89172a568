"""The sellers' own book: what they bill, from their published price tables, in integer nano-dollars.

It shares no code with the gateway's tariffs on purpose: the two must agree to the last nano-dollar, and
that means something only when each was written for itself. Prices are those published as of 2026-11.
Every order is computed with fractions and rounded once, half to even.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import TypedDict

from msgspec import Struct
from msgspec.structs import replace

from providers.sandbox.endpoints import BACKGROUND_REMOVER, Seller, Size

_BINARY_MEGAPIXEL = 1_048_576
_DECIMAL_MEGAPIXEL = 1_000_000
_NANO = 1_000_000_000


class Work(Struct, frozen=True, kw_only=True):
    """What an order took, as far as any seller bills it."""

    pictures: Sequence[Size]
    steps: int | None = None
    inputs: Sequence[Size] = ()
    """Sizes of the pictures it was made from."""
    machine_ns: int = 0
    """Nanoseconds that a machine worked on it."""
    text_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


Measure = Callable[[Work], Fraction]


class Price(Struct, frozen=True):
    """A published price: dollars for one unit, what the unit is called, and how pictures are counted in it."""

    usd: Fraction
    unit: str
    measure: Measure


class Charge(Struct, frozen=True):
    """What one order costs, and how it was counted."""

    units: Fraction
    unit_usd: Fraction
    nano_usd: int


class Line(Struct, frozen=True, kw_only=True):
    """One billed order."""

    provider: Seller
    account: str
    request_id: str
    model: str
    units: Fraction
    unit_usd: Fraction
    nano_usd: int
    """Owed for it, with what the account's contract takes off; negative where money comes back."""
    pictures: int
    at: datetime
    percent: Fraction = Fraction(0)
    """Taken off the list price."""
    prepaid: int = 0
    """What of it the account's credit covers."""
    reported: bool = True
    """False when the seller's own billing API leaves the order out."""
    machine: str = ""
    """Which of several machines of an account drew it."""
    attempt: str = ""
    """The caller's own id of the order, where the machine keeps it."""
    machine_ns: int = 0


class Invoice(TypedDict):
    """The answer of `GET /_sandbox/invoice`: lines in the order of billing, totals in nano-dollars."""

    lines: Sequence[Mapping[str, object]]
    total_nano_usd: Mapping[str, int]
    by_account: Mapping[str, Mapping[str, int]]
    """Seller -> account -> total."""


def _rounded_up(work: Work) -> Fraction:
    return Fraction(sum(_whole(size) for size in work.pictures))


def _whole(size: Size) -> int:
    return max(1, -(-size[0] * size[1] // _BINARY_MEGAPIXEL))


def _per_image(work: Work) -> Fraction:
    return Fraction(len(work.pictures))


def _first_then_half(work: Work) -> Fraction:
    return sum((1 + Fraction(_whole(size) - 1, 2) for size in work.pictures), Fraction(0))


def _in_and_out(work: Work) -> Fraction:
    return Fraction(sum(_whole(size) for size in work.pictures) + _given(work))


def _run_in_and_out(work: Work) -> Fraction:
    return _in_and_out(work) + (1 if work.pictures else 0)


def _given(work: Work) -> int:
    """Megapixels of the inputs; those above four are made smaller before they are counted."""
    return sum(min(_whole(size), 4) for size in work.inputs)


def _first_then(further: Fraction) -> Measure:
    """The first megapixel of each picture counts one, each further one and each of the inputs a part of that."""
    return lambda work: len(work.pictures) * (1 - further) + further * _in_and_out(work)


def _by_resolution(work: Work) -> Fraction:
    return _table(Fraction(1, 2), Fraction(3, 4))(work)


def _table(small: Fraction, medium: Fraction) -> Measure:
    """What pictures up to 512 x 512 and up to 768 x 768 count, as parts of a megapixel."""

    def measure(work: Work) -> Fraction:
        return sum((_resolution_units(size, small, medium) for size in work.pictures), Fraction(0))

    return measure


def _resolution_units(size: Size, small: Fraction, medium: Fraction) -> Fraction:
    pixels = size[0] * size[1]
    if pixels <= 512 * 512:
        return small
    return medium if pixels <= 768 * 768 else Fraction(_whole(size))


def _dearer_with_inputs(work: Work) -> Fraction:
    return len(work.pictures) * (Fraction(5, 4) if work.inputs else Fraction(1))


def _per_second(work: Work) -> Fraction:
    return Fraction(work.machine_ns, _NANO)


def _exact(work: Work) -> Fraction:
    return Fraction(sum(width * height for width, height in work.pictures), _DECIMAL_MEGAPIXEL)


def _exact_by_steps(work: Work) -> Fraction:
    return _exact(work) * max(Fraction(1), Fraction(work.steps if work.steps is not None else 4, 4))


def _tokens_of_gpt_image_2(work: Work) -> Fraction:
    """Dollars a million: $5 for text in, $8 for pictures in, $30 for pictures out."""
    return Fraction(5 * work.text_tokens + 8 * work.input_tokens + 30 * work.output_tokens)


def _price(usd: str, unit: str, measure: Measure) -> Price:
    return Price(Fraction(usd), unit, measure)


PUBLISHED: Mapping[tuple[Seller, str], Price] = {
    ("fal", "fal-ai/flux/schnell"): _price("0.003", "megapixels", _rounded_up),
    # fal's own price list calls the unit of flux/dev "image" and still bills whole megapixels.
    ("fal", "fal-ai/flux/dev"): _price("0.025", "image", _rounded_up),
    ("fal", "fal-ai/flux-pro/v1.1"): _price("0.04", "megapixels", _by_resolution),
    ("fal", "fal-ai/flux-pro/v1.1-ultra"): _price("0.06", "image", _per_image),
    ("fal", "fal-ai/flux-2"): _price("0.012", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-2/flash"): _price("0.005", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-2-flex"): _price("0.06", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-2-pro"): _price("0.03", "megapixels", _first_then_half),
    ("fal", "fal-ai/flux-2-max"): _price("0.07", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-pro/kontext"): _price("0.04", "image", _per_image),
    ("fal", "fal-ai/flux-pro/v1/fill"): _price("0.05", "megapixels", _rounded_up),
    ("fal", "fal-ai/bria/background/remove"): _price("0.018", "image", _per_image),
    ("fal", "fal-ai/recraft/v3/text-to-image"): _price("0.03", "image", _per_image),
    ("fal", "fal-ai/flux/dev/image-to-image"): _price("0.03", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux/krea"): _price("0.025", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-realism"): _price("0.05", "megapixels", _table(Fraction(3, 5), Fraction(4, 5))),
    ("fal", "fal-ai/flux-subject"): _price("0.04", "image", _dearer_with_inputs),
    ("fal", "fal-ai/flux-lora"): _price("0.04", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-general"): _price("0.075", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-general/image-to-image"): _price("0.075", "megapixels", _rounded_up),
    ("fal", "fal-ai/stable-diffusion-v35-large"): _price("0.065", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-kontext/dev"): _price("0.025", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-pro/new"): _price("0.05", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-pro/kontext/text-to-image"): _price("0.04", "image", _per_image),
    ("fal", "fal-ai/flux-pro/kontext/max"): _price("0.08", "image", _per_image),
    ("fal", "fal-ai/flux-pro/kontext/max/text-to-image"): _price("0.08", "image", _per_image),
    ("fal", "fal-ai/flux-2/edit"): _price("0.012", "megapixels", _in_and_out),
    ("fal", "fal-ai/flux-2/flash/edit"): _price("0.005", "megapixels", _in_and_out),
    ("fal", "fal-ai/flux-2/turbo"): _price("0.008", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-2/turbo/edit"): _price("0.008", "megapixels", _in_and_out),
    ("fal", "fal-ai/flux-2/klein/4b"): _price("0.014", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-2/klein/4b/edit"): _price("0.014", "megapixels", _in_and_out),
    ("fal", "fal-ai/flux-2/klein/9b"): _price("0.011", "megapixels", _rounded_up),
    ("fal", "fal-ai/flux-2/klein/9b/edit"): _price("0.011", "megapixels", _in_and_out),
    ("fal", "fal-ai/flux-2-flex/edit"): _price("0.06", "megapixels", _in_and_out),
    ("fal", "fal-ai/flux-2-pro/edit"): _price("0.03", "megapixels", _first_then(Fraction(1, 2))),
    ("fal", "fal-ai/flux-2-max/edit"): _price("0.07", "megapixels", _first_then(Fraction(3, 7))),
    ("together", "black-forest-labs/FLUX.1-kontext-max"): _price("0.08", "megapixels", _exact),
    ("openai", "gpt-image-2"): _price("0.000001", "weighted tokens", _tokens_of_gpt_image_2),
    ("replicate", "black-forest-labs/flux-schnell"): _price("0.003", "image", _per_image),
    ("replicate", "black-forest-labs/flux-dev"): _price("0.025", "image", _per_image),
    ("replicate", "black-forest-labs/flux-1.1-pro"): _price("0.04", "image", _per_image),
    ("replicate", "black-forest-labs/flux-krea-dev"): _price("0.025", "image", _per_image),
    ("replicate", "black-forest-labs/flux-pro"): _price("0.055", "image", _per_image),
    ("replicate", "black-forest-labs/flux-1.1-pro-ultra"): _price("0.06", "image", _per_image),
    ("replicate", "black-forest-labs/flux-kontext-pro"): _price("0.04", "image", _per_image),
    ("replicate", "black-forest-labs/flux-kontext-max"): _price("0.08", "image", _per_image),
    ("replicate", "black-forest-labs/flux-2-pro"): _price("0.015", "runs and megapixels", _run_in_and_out),
    ("replicate", "black-forest-labs/flux-2-flex"): _price("0.06", "megapixels", _in_and_out),
    ("replicate", "black-forest-labs/flux-2-dev"): _price("0.014", "megapixels", _in_and_out),
    # Nvidia T4, by the second of predict_time.
    ("replicate", f"851-labs/background-remover:{BACKGROUND_REMOVER}"): _price("0.000225", "second", _per_second),
    ("together", "black-forest-labs/FLUX.1-schnell"): _price("0.0027", "megapixels", _exact_by_steps),
    ("together", "black-forest-labs/FLUX.1.1-pro"): _price("0.04", "megapixels", _exact),
    ("together", "black-forest-labs/FLUX.1-kontext-pro"): _price("0.04", "megapixels", _exact),
    ("together", "black-forest-labs/FLUX.2-dev"): _price("0.0154", "image", _per_image),
    ("together", "black-forest-labs/FLUX.2-flex"): _price("0.03", "image", _per_image),
    ("together", "black-forest-labs/FLUX.2-pro"): _price("0.03", "image", _per_image),
    ("together", "black-forest-labs/FLUX.2-max"): _price("0.07", "megapixels", _exact),
}


def machine_hour(usd: Fraction) -> Price:
    """A machine by the hour, by the nanosecond."""
    return Price(usd, "machine hours", lambda work: Fraction(work.machine_ns, 3_600 * _NANO))


def _minutes(half: str, whole: str) -> Callable[[int], Fraction]:
    """Dollars of so many seconds of sound: whole minutes, and the rest as half a minute or one."""

    def usd(seconds: int) -> Fraction:
        minutes, rest = divmod(seconds, 60)
        last = Fraction(0) if rest == 0 else Fraction(half) if rest <= 30 else Fraction(whole)
        return minutes * Fraction(whole) + last

    return usd


BESIDE_PICTURES: Mapping[tuple[Seller, str], Callable[[int], Fraction]] = {
    ("fal", "fal-ai/flux-lora-portrait-trainer"): lambda _seconds: Fraction(2),
    ("fal", "fal-ai/flux-lora-fast-training"): lambda _seconds: Fraction(1),
    ("fal", "fal-ai/recraft/v3/create-style"): lambda _seconds: Fraction(1, 10),
    ("fal", "fal-ai/f5-tts"): _minutes("0.02", "0.03"),
    ("fal", "fal-ai/stable-audio"): _minutes("0.05", "0.08"),
}
"""Dollars of one, by its seconds; no twin makes these."""
_OWN_MACHINE = Price(Fraction(0), "image", _per_image)


class PriceList:
    """The prices in force: the published ones, and what a script changed since."""

    def __init__(self) -> None:
        self._changed: dict[tuple[Seller, str], Fraction] = {}
        self._units: dict[tuple[Seller, str], str] = {}
        self._times: dict[tuple[Seller, str], Fraction] = {}
        self._estimated: dict[tuple[Seller, str], Fraction] = {}

    def change(self, seller: Seller, endpoint: str, usd: str) -> None:
        """From now on `endpoint` (or `*`: all of the seller's) costs `usd` dollars per unit."""
        self._changed[seller, endpoint] = Fraction(usd)

    def call(self, seller: Seller, endpoint: str, unit: str) -> None:
        """From now on the list calls the unit of `endpoint` so; it is counted as before."""
        self._units[seller, endpoint] = unit

    def count(self, seller: Seller, endpoint: str, times: str) -> None:
        """From now on orders of `endpoint` (or `*`) count `times` the units they did."""
        self._times[seller, endpoint] = Fraction(times)

    def estimate(self, seller: Seller, endpoint: str, usd: str) -> None:
        """From now on a seller that estimates says so many dollars for a unit of `endpoint`, whatever its list says."""
        self._estimated[seller, endpoint] = Fraction(usd)

    def estimated(self, seller: Seller, endpoint: str) -> Fraction:
        """Dollars of a unit, by the seller's estimate."""
        return self._estimated.get((seller, endpoint), self.of(seller, endpoint).usd)

    def forget_changes(self) -> None:
        """Back to the published prices."""
        self._estimated.clear()
        self._times.clear()
        self._changed.clear()
        self._units.clear()

    def of(self, seller: Seller, endpoint: str) -> Price:
        """The price of one endpoint at this moment."""
        price = PUBLISHED.get((seller, endpoint), _OWN_MACHINE)
        changed = self._changed.get((seller, endpoint), self._changed.get((seller, "*")))
        unit = self._units.get((seller, endpoint), price.unit)
        times = self._times.get((seller, endpoint), self._times.get((seller, "*")))
        measure = price.measure if times is None else lambda work: times * price.measure(work)
        return Price(price.usd if changed is None else changed, unit, measure)


def charge(price: Price, work: Work) -> Charge:
    """What an order that took `work` costs at `price`."""
    units = price.measure(work)
    return Charge(units, price.usd, round(units * price.usd * _NANO))


def money_back(line: Line, nano_usd: int, at: datetime, prepaid: int = 0) -> Line:
    """A line that takes back a part of what an order's own line, or those before it, owe."""
    return replace(
        line, units=Fraction(0), nano_usd=-nano_usd, pictures=0, at=at, prepaid=-prepaid, machine="", machine_ns=0
    )


def royalty(line: Line, what: str, nano_usd: int) -> Line:
    """What an order's pictures owe the owner of the weights: another creditor, whose bill no machine reports."""
    return replace(
        line,
        account=f"licence:{line.model}",
        request_id=f"{line.request_id} {what}",
        nano_usd=nano_usd,
        prepaid=0,
        machine="",
        machine_ns=0,
        attempt="",
    )


def decimal_text(value: Fraction) -> str:
    """A fraction as plain decimal digits, exact where it has an end."""
    with localcontext(prec=60):
        digits = Decimal(value.numerator) / Decimal(value.denominator)
    return format(digits.normalize(), "f")


class Book:
    """Every order billed, in the order of billing."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def enter(self, line: Line) -> None:
        """Write one line; lines are never changed."""
        self.lines.append(line)

    def invoice(self, provider: str | None = None) -> Invoice:
        """What was billed, all in all or by one seller."""
        lines = [line for line in self.lines if provider in {None, line.provider}]
        totals: dict[str, int] = {}
        accounts: dict[str, dict[str, int]] = {}
        for line in lines:
            totals[line.provider] = totals.get(line.provider, 0) + line.nano_usd
            account = accounts.setdefault(line.provider, {})
            account[line.account] = account.get(line.account, 0) + line.nano_usd
        return {"lines": [_shown(line) for line in lines], "total_nano_usd": totals, "by_account": accounts}


def _shown(line: Line) -> dict[str, object]:
    return {
        "provider": line.provider,
        "account": line.account,
        "request_id": line.request_id,
        "model": line.model,
        "units": decimal_text(line.units),
        "nano_usd": line.nano_usd,
        "percent": decimal_text(line.percent),
        "prepaid_nano_usd": line.prepaid,
        "pictures": line.pictures,
        "at": line.at.isoformat(),
    }
