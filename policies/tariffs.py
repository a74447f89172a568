"""How sellers charge: `quote` before the work, `bill` after it, `describe` for people.

Each tariff is plain data from the catalogue. All arithmetic is on integers (an exact numerator over an exact
denominator) and is rounded once per order, half to even, as the sellers' own invoices are in `providers/sandbox`.

    PerImage           price x pictures
    PerMegapixel       price x megapixels, each picture rounded up or none, x steps above the default
    ResolutionTable    price by the smallest row that holds the picture
    FirstMegapixel     one price for the first started megapixel, another for each further one
    MachineSecond      price x a machine's time

To add a kind: a struct here, a `case` in the three functions that end in `assert_never`, a `Price` field in
`policies/catalog.py`, a section in `docs/reference/tariffs.md`, vectors in `tests/prices/vectors.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, assert_never

from msgspec import Struct

from policies.money import NanoUsd, to_usd
from providers.contract import ImageRequest, Usage

BINARY_MEGAPIXEL = 1_048_576
"""Pixels of a megapixel as fal bills it: 1024 x 1024."""
DECIMAL_MEGAPIXEL = 1_000_000
"""Pixels of a megapixel as Together bills it."""
_HOUR_NS = 3_600_000_000_000


class Unpriced(ValueError):
    """The tariff names no price for a picture of this size; unknown is not zero."""


class PerImage(Struct, frozen=True, tag="per_image", tag_field="kind"):
    """The same price for every picture, whatever its size."""

    price: NanoUsd


class PerMegapixel(Struct, frozen=True, tag="per_megapixel", tag_field="kind"):
    """A price for each megapixel of each picture."""

    price: NanoUsd
    pixels: int = BINARY_MEGAPIXEL
    """What the seller calls a megapixel."""
    rounding: Literal["up", "exact"] = "up"
    """`up`: each picture counts as whole megapixels, at least one. `exact`: by the pixel."""
    default_steps: int | None = None
    """When set, more steps than this raise the price in proportion; fewer never lower it."""


class ResolutionTable(Struct, frozen=True, tag="resolution_table", tag_field="kind"):
    """A price by size: the first row whose `max_pixels` holds the picture."""

    rows: tuple[tuple[int, NanoUsd], ...]
    """(`max_pixels`, price), ascending."""
    beyond: NanoUsd | None = None
    """Per started megapixel of a picture larger than the last row; None: such a picture has no price."""
    pixels: int = BINARY_MEGAPIXEL


class FirstMegapixel(Struct, frozen=True, tag="first_megapixel", tag_field="kind"):
    """One price for the first started megapixel of a picture, another for each further one."""

    first: NanoUsd
    further: NanoUsd
    pixels: int = BINARY_MEGAPIXEL


class MachineSecond(Struct, frozen=True, tag="machine_second", tag_field="kind"):
    """A machine's time, by the nanosecond; priced per hour so that $0.34 an hour stays an integer."""

    nano_usd_per_hour: NanoUsd


Tariff: TypeAlias = PerImage | PerMegapixel | ResolutionTable | FirstMegapixel | MachineSecond


class Quote(Struct, frozen=True, kw_only=True):
    """What an order will cost, in nano-dollars."""

    amount: NanoUsd
    """Equals the bill when `certain` and the seller draws what was asked; else the best estimate."""
    hold: NanoUsd
    """What to set aside: `amount` rounded up, or an upper bound where the price is not certain."""
    certain: bool
    unit: str
    """What it is charged by, for people: "2 MP x $0.025"."""
    revision: int
    """Of the catalogue the price came from."""


def quote(
    tariff: Tariff,
    request: ImageRequest,
    *,
    default_steps: int | None = None,
    revision: int = 0,
    expected_machine_ns: int = 0,
    longest_machine_ns: int = 0,
) -> Quote:
    """Price `request` as it stands.

    `default_steps` is what the endpoint runs when the request names none. `expected_machine_ns` and
    `longest_machine_ns` are nanoseconds of machine time, likely and at most; only `MachineSecond` reads them.
    Raises `Unpriced` when the tariff has no price for the size.
    """
    pixels = request.width * request.height
    steps = default_steps if request.steps is None else request.steps
    numerator, denominator = _exact(tariff, (pixels,) * request.count, steps, expected_machine_ns)
    hold = -(-numerator // denominator)
    certain = not isinstance(tariff, MachineSecond)
    if not certain and longest_machine_ns > expected_machine_ns:
        numerator_at_most, _ = _exact(tariff, (), steps, longest_machine_ns)
        hold = -(-numerator_at_most // denominator)
    return Quote(
        amount=_half_even(numerator, denominator),
        hold=hold,
        certain=certain,
        unit=_unit(tariff, pixels, request.count, steps, expected_machine_ns),
        revision=revision,
    )


def bill(tariff: Tariff, usage: Usage, *, default_steps: int | None = None) -> NanoUsd:
    """Price an order by what it consumed; the seller's own word (`usage.nano_usd`) outranks the tariff.

    Raises `Unpriced` when a picture came in a size the tariff has no price for.
    """
    if usage.nano_usd is not None:
        return usage.nano_usd
    areas = [width * height for width, height in usage.images]
    steps = default_steps if usage.steps is None else usage.steps
    return _half_even(*_exact(tariff, areas, steps, usage.machine_ns))


def describe(tariff: Tariff) -> str:
    """Say the tariff in one line for people: "$0.003 per megapixel of 1,048,576 px, each image rounded up"."""
    match tariff:
        case PerImage():
            return f"${to_usd(tariff.price)} per image"
        case PerMegapixel():
            rounding = "each image rounded up" if tariff.rounding == "up" else "by the pixel"
            steps = f", times steps/{tariff.default_steps} above {tariff.default_steps} steps"
            return (
                f"${to_usd(tariff.price)} per megapixel of {tariff.pixels:,} px, {rounding}"
                f"{steps if tariff.default_steps else ''}"
            )
        case ResolutionTable():
            rows = ", ".join(f"${to_usd(price)} up to {most:,} px" for most, price in tariff.rows)
            if tariff.beyond is None:
                return f"{rows} per image"
            return f"{rows} per image; above, ${to_usd(tariff.beyond)} per started megapixel of {tariff.pixels:,} px"
        case FirstMegapixel():
            return (
                f"${to_usd(tariff.first)} for the first megapixel of {tariff.pixels:,} px, "
                f"${to_usd(tariff.further)} for each further one, each image rounded up"
            )
        case MachineSecond():
            return f"${to_usd(tariff.nano_usd_per_hour)} per machine hour, by the nanosecond"
        case _:
            assert_never(tariff)


def price_of_area(tariff: ResolutionTable, pixels: int) -> NanoUsd:
    """Look up what one picture of so many pixels costs; raises `Unpriced` beyond its end."""
    for most, price in tariff.rows:
        if pixels <= most:
            return price
    if tariff.beyond is None:
        raise Unpriced(f"no price for {pixels:,} pixels: the table ends at {tariff.rows[-1][0]:,}")
    return tariff.beyond * -(-pixels // tariff.pixels)


def _exact(tariff: Tariff, areas: Sequence[int], steps: int | None, machine_ns: int) -> tuple[int, int]:
    """Nano-dollars as numerator and denominator, before the one rounding."""
    match tariff:
        case PerImage():
            return tariff.price * len(areas), 1
        case PerMegapixel():
            return _per_megapixel(tariff, areas, steps)
        case ResolutionTable():
            return sum([price_of_area(tariff, area) for area in areas]), 1
        case FirstMegapixel():
            further = sum([max(-(-area // tariff.pixels), 1) for area in areas]) - len(areas)
            return tariff.first * len(areas) + tariff.further * further, 1
        case MachineSecond():
            return tariff.nano_usd_per_hour * machine_ns, _HOUR_NS
        case _:
            assert_never(tariff)


def _per_megapixel(tariff: PerMegapixel, areas: Sequence[int], steps: int | None) -> tuple[int, int]:
    """Megapixels times price, times steps above the default."""
    if tariff.rounding == "up":
        numerator, denominator = tariff.price * sum([-(-area // tariff.pixels) for area in areas]), 1
    else:
        numerator, denominator = tariff.price * sum(areas), tariff.pixels
    if steps and tariff.default_steps and steps > tariff.default_steps:
        return numerator * steps, denominator * tariff.default_steps
    return numerator, denominator


def _half_even(numerator: int, denominator: int) -> NanoUsd:
    """`money.half_even` on a bare pair: no gcd, a tenth of the time."""
    whole, rest = divmod(numerator, denominator)
    over = 2 * rest - denominator
    return whole + 1 if over > 0 or (over == 0 and whole & 1) else whole


def _unit(tariff: Tariff, pixels: int, count: int, steps: int | None, machine_ns: int) -> str:
    """Say what an order is charged by."""
    images = f"{count} x " if count > 1 else ""
    match tariff:
        case PerImage():
            return f"{count} image{'s' if count > 1 else ''} x ${to_usd(tariff.price)}"
        case PerMegapixel():
            return images + _megapixel_unit(tariff, pixels, steps)
        case ResolutionTable():
            most = next((most for most, _ in tariff.rows if pixels <= most), None)
            size = f"{-(-pixels // tariff.pixels)} started MP" if most is None else f"image up to {most:,} px"
            return f"{images}{size} = ${to_usd(price_of_area(tariff, pixels))}"
        case FirstMegapixel():
            further = max(-(-pixels // tariff.pixels), 1) - 1
            return f"{images}(1 MP x ${to_usd(tariff.first)} + {further} MP x ${to_usd(tariff.further)})"
        case MachineSecond():
            return f"about {machine_ns / 1e9:.3g} s x ${to_usd(tariff.nano_usd_per_hour)}/h"
        case _:
            assert_never(tariff)


def _megapixel_unit(tariff: PerMegapixel, pixels: int, steps: int | None) -> str:
    """Say the megapixels of one picture, and the steps where they raise its price."""
    if tariff.rounding == "up":
        megapixels = str(-(-pixels // tariff.pixels))
    else:
        megapixels = f"{pixels / tariff.pixels:.6f}".rstrip("0").rstrip(".")
    price = f"{megapixels} MP x ${to_usd(tariff.price)}"
    if steps and tariff.default_steps and steps > tariff.default_steps:
        return f"{price} x {steps}/{tariff.default_steps} steps"
    return price
