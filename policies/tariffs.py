"""How sellers charge: `quote` before the work, `bill` after it, `describe` for people.

Each tariff is plain data from the catalogue. All arithmetic is on integers (an exact numerator over an exact
denominator) and is rounded once per order, half to even, as the sellers' own invoices are in `providers/sandbox`.

    PerImage           price x pictures, and a surcharge for each where the order has input pictures
    PerRequest         one price for an order, whatever it makes
    PerMegapixel       price x megapixels, each picture rounded up or none, x steps above the default
    ResolutionTable    price by the smallest row that holds the picture
    FirstMegapixel     one price for the first started megapixel, another for each further one
    RunMegapixel       a price for the run, one for each megapixel out, one for each megapixel in
    PerToken           prices for text and picture tokens in, and picture tokens out
    ComputeSecond      price x seconds of a seller's hardware
    MachineSecond      price x a machine's time, where the machine is ours

A quote is the bill of what an order will probably consume, so both go through `_exact`. To add a kind: a struct here, a
`case` in the three functions that end in `assert_never`, a `Price` field in `policies/catalog_file.py`, a section in
`docs/reference/tariffs.md`, vectors in `tests/prices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias, assert_never

from msgspec import Struct

from policies.money import NanoUsd, to_usd
from providers.contract import ImageRequest, Tokens, Usage

BINARY_MEGAPIXEL = 1_048_576
"""Pixels of a megapixel as fal bills it: 1024 x 1024."""
DECIMAL_MEGAPIXEL = 1_000_000
"""Pixels of a megapixel as Together bills it."""
_HOUR_NS = 3_600_000_000_000
_SECOND_NS = 1_000_000_000
_MILLION = 1_000_000
_LETTERS_PER_TOKEN = 4
"""English text, as its sellers reckon; only a quote uses it, a bill has the count."""

Rounding: TypeAlias = Literal["up", "exact"]

_usd = lru_cache(to_usd)
"""Prices are few and said often."""


class Unpriced(ValueError):
    """The tariff names no price for what was asked or made; unknown is not zero."""


class PerImage(Struct, frozen=True, tag="per_image", tag_field="kind"):
    """The same price for every picture, whatever its size."""

    price: NanoUsd
    with_reference: NanoUsd = 0
    """Added for every picture of an order that has input pictures, however many."""


class PerRequest(Struct, frozen=True, tag="per_request", tag_field="kind"):
    """The same price for every order that made something, however much."""

    price: NanoUsd


class PerMegapixel(Struct, frozen=True, tag="per_megapixel", tag_field="kind"):
    """A price for each megapixel of each picture."""

    price: NanoUsd
    pixels: int = BINARY_MEGAPIXEL
    """What the seller calls a megapixel."""
    rounding: Rounding = "up"
    """`up`: each picture counts as whole megapixels, at least one. `exact`: by the pixel."""
    default_steps: int | None = None
    """When set, more steps than this raise the price in proportion; fewer never lower it."""
    counts_inputs: bool = False
    """Whether input pictures are charged like those made, once per order."""
    largest_input: int | None = None
    """Most megapixels one input picture counts as (larger ones are made smaller first)."""


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
    counts_inputs: bool = False
    """Whether each started megapixel of an input picture is charged as a further one, once per order."""
    largest_input: int | None = None
    """Most megapixels one input picture counts as."""


class RunMegapixel(Struct, frozen=True, tag="run_megapixel", tag_field="kind"):
    """A price for the run itself, one for each megapixel that comes out, one for each that goes in."""

    run: NanoUsd
    output: NanoUsd
    input: NanoUsd
    pixels: int = BINARY_MEGAPIXEL
    rounding: Rounding = "up"
    """Of each picture, in or out."""
    largest_input: int | None = None
    """Most megapixels one input picture counts as."""


class PerToken(Struct, frozen=True, tag="per_token", tag_field="kind"):
    """Prices of a million tokens; the bill takes the counts that the seller reports."""

    text_in: NanoUsd
    image_in: NanoUsd
    image_out: NanoUsd
    made: tuple[tuple[int, int, int], ...]
    """(width, height, tokens) of one picture at the quality the endpoint draws; no other size has a price."""
    per_input: int = 0
    """Tokens that an input picture usually counts as."""
    per_input_at_most: int = 0


class ComputeSecond(Struct, frozen=True, tag="compute_second", tag_field="kind"):
    """Seconds of a seller's hardware, by the nanosecond."""

    nano_usd_per_second: NanoUsd
    hardware: str
    """The seller's name for it: "gpu-l40s"."""


class MachineSecond(Struct, frozen=True, tag="machine_second", tag_field="kind"):
    """A machine's time, by the nanosecond; priced per hour so that $0.34 an hour stays an integer."""

    nano_usd_per_hour: NanoUsd


Tariff: TypeAlias = (
    PerImage
    | PerRequest
    | PerMegapixel
    | ResolutionTable
    | FirstMegapixel
    | RunMegapixel
    | PerToken
    | ComputeSecond
    | MachineSecond
)

_BY_TIME = (ComputeSecond, MachineSecond)
_UNCERTAIN = (*_BY_TIME, PerToken)


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


def by_time(tariff: Tariff) -> bool:
    """Whether the price follows the time that the work takes."""
    return isinstance(tariff, _BY_TIME)


def by_tokens(tariff: Tariff) -> bool:
    """Whether the price follows tokens, those of the prompt among them."""
    return isinstance(tariff, PerToken)


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
    `longest_machine_ns` are nanoseconds of machine time, likely and at most; only tariffs by time read them.
    Raises `Unpriced` when the tariff has no price for the size.
    """
    likely = _forecast(tariff, request, expected_machine_ns)
    numerator, denominator = _exact(tariff, likely, default_steps)
    hold = -(-numerator // denominator)
    certain = not isinstance(tariff, _UNCERTAIN)
    if not certain:
        most = _forecast(tariff, request, max(expected_machine_ns, longest_machine_ns), at_most=True)
        at_most, per = _exact(tariff, most, default_steps)
        hold = -(-at_most // per)
    return Quote(
        amount=_half_even(numerator, denominator),
        hold=hold,
        certain=certain,
        unit=_unit(tariff, likely, default_steps),
        revision=revision,
    )


def bill(tariff: Tariff, usage: Usage, *, default_steps: int | None = None) -> NanoUsd:
    """Price an order by what it consumed; the seller's own word (`usage.nano_usd`) outranks the tariff.

    Raises `Unpriced` when a picture came in a size the tariff has no price for, or without the tokens it is billed by.
    """
    if usage.nano_usd is not None:
        return usage.nano_usd
    return _half_even(*_exact(tariff, usage, default_steps))


def describe(tariff: Tariff) -> str:  # noqa: C901, PLR0911 - one case for each kind
    """Say the tariff in one line for people: "$0.003 per megapixel of 1,048,576 px, each image rounded up"."""
    match tariff:
        case PerImage():
            surcharge = f", ${_usd(tariff.with_reference)} more with an input picture"
            return f"${_usd(tariff.price)} per image{surcharge if tariff.with_reference else ''}"
        case PerRequest():
            return f"${_usd(tariff.price)} per request"
        case PerMegapixel():
            steps = f", times steps/{tariff.default_steps} above {tariff.default_steps} steps"
            return (
                f"${_usd(tariff.price)} per megapixel of {tariff.pixels:,} px, {_rounding(tariff.rounding)}"
                f"{steps if tariff.default_steps else ''}{_inputs(tariff)}"
            )
        case ResolutionTable():
            rows = ", ".join(f"${_usd(price)} up to {most:,} px" for most, price in tariff.rows)
            if tariff.beyond is None:
                return f"{rows} per image"
            return f"{rows} per image; above, ${_usd(tariff.beyond)} per started megapixel of {tariff.pixels:,} px"
        case FirstMegapixel():
            return (
                f"${_usd(tariff.first)} for the first megapixel of {tariff.pixels:,} px, "
                f"${_usd(tariff.further)} for each further one, each image rounded up{_inputs(tariff)}"
            )
        case RunMegapixel():
            return (
                f"${_usd(tariff.run)} per run, ${_usd(tariff.output)} per megapixel out and "
                f"${_usd(tariff.input)} per megapixel in, of {tariff.pixels:,} px, {_rounding(tariff.rounding)}"
                f"{_largest(tariff.largest_input)}"
            )
        case PerToken():
            return (
                f"per million tokens: ${_usd(tariff.text_in)} text in, ${_usd(tariff.image_in)} image in, "
                f"${_usd(tariff.image_out)} image out"
            )
        case ComputeSecond():
            return f"${_usd(tariff.nano_usd_per_second)} per second of {tariff.hardware}, by the nanosecond"
        case MachineSecond():
            return f"${_usd(tariff.nano_usd_per_hour)} per machine hour, by the nanosecond"
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


def _forecast(tariff: Tariff, request: ImageRequest, machine_ns: int, *, at_most: bool = False) -> Usage:
    """What an order will consume: probably, or at most."""
    return Usage(
        images=((request.width, request.height),) * request.count,
        steps=request.steps,
        references=request.references,
        machine_ns=machine_ns,
        tokens=_tokens(tariff, request, at_most=at_most) if isinstance(tariff, PerToken) else None,
    )


def _tokens(tariff: PerToken, request: ImageRequest, *, at_most: bool) -> Tokens:
    """Count the tokens of an order ahead; a byte of text is never more than one."""
    each = next((tokens for width, height, tokens in tariff.made if (width, height) == request.size), None)
    if each is None:
        raise Unpriced(f"no price for {request.width}x{request.height}: its picture tokens are not known")
    letters = len(request.prompt)
    return Tokens(
        text_in=len(request.prompt.encode()) if at_most else -(-letters // _LETTERS_PER_TOKEN),
        image_in=(tariff.per_input_at_most if at_most else tariff.per_input) * len(request.references),
        image_out=each * request.count,
    )


def _exact(  # noqa: PLR0911 - one case for each kind
    tariff: Tariff, usage: Usage, default_steps: int | None
) -> tuple[int, int]:
    """Nano-dollars as numerator and denominator, before the one rounding."""
    areas = [width * height for width, height in usage.images]
    match tariff:
        case PerImage():
            return (tariff.price + (tariff.with_reference if usage.references else 0)) * len(areas), 1
        case PerRequest():
            return (tariff.price if areas else 0), 1
        case PerMegapixel():
            return _per_megapixel(tariff, areas, usage, default_steps)
        case ResolutionTable():
            return sum([price_of_area(tariff, area) for area in areas]), 1
        case FirstMegapixel():
            further, _ = _megapixels(areas, tariff.pixels, "up")
            inputs, _ = _input_megapixels(tariff, usage, "up") if tariff.counts_inputs else (0, 1)
            return tariff.first * len(areas) + tariff.further * (further - len(areas) + inputs), 1
        case RunMegapixel():
            made, per = _megapixels(areas, tariff.pixels, tariff.rounding)
            given, _ = _input_megapixels(tariff, usage, tariff.rounding)
            return (tariff.run * per if areas else 0) + tariff.output * made + tariff.input * given, per
        case PerToken():
            return _per_token(tariff, usage), _MILLION
        case ComputeSecond():
            return tariff.nano_usd_per_second * usage.machine_ns, _SECOND_NS
        case MachineSecond():
            return tariff.nano_usd_per_hour * usage.machine_ns, _HOUR_NS
        case _:
            assert_never(tariff)


def _per_megapixel(
    tariff: PerMegapixel, areas: Sequence[int], usage: Usage, default_steps: int | None
) -> tuple[int, int]:
    """Megapixels times price, times steps above the default."""
    megapixels, denominator = _megapixels(areas, tariff.pixels, tariff.rounding)
    if tariff.counts_inputs:
        megapixels += _input_megapixels(tariff, usage, tariff.rounding)[0]
    numerator = tariff.price * megapixels
    steps = default_steps if usage.steps is None else usage.steps
    if steps and tariff.default_steps and steps > tariff.default_steps:
        return numerator * steps, denominator * tariff.default_steps
    return numerator, denominator


def _per_token(tariff: PerToken, usage: Usage) -> int:
    """Millionths of nano-dollars; pictures whose tokens were not told have no price."""
    tokens = usage.tokens
    if tokens is None:
        if usage.images:
            raise Unpriced("the seller did not say how many tokens it used")
        return 0
    return tariff.text_in * tokens.text_in + tariff.image_in * tokens.image_in + tariff.image_out * tokens.image_out


def _megapixels(areas: Sequence[int], pixels: int, rounding: Rounding) -> tuple[int, int]:
    """Megapixels of some pictures, as numerator and denominator."""
    if rounding == "up":
        return sum([-(-area // pixels) for area in areas]), 1
    return sum(areas), pixels


def _input_megapixels(
    tariff: PerMegapixel | FirstMegapixel | RunMegapixel, usage: Usage, rounding: Rounding
) -> tuple[int, int]:
    """Megapixels of the input pictures, none counted as more than the largest that is kept."""
    areas = [width * height for width, height in usage.references]
    if tariff.largest_input is not None:
        most = tariff.largest_input * tariff.pixels
        areas = [min(area, most) for area in areas]
    return _megapixels(areas, tariff.pixels, rounding)


def _half_even(numerator: int, denominator: int) -> NanoUsd:
    """`money.half_even` on a bare pair: no gcd, a tenth of the time."""
    whole, rest = divmod(numerator, denominator)
    over = 2 * rest - denominator
    return whole + 1 if over > 0 or (over == 0 and whole & 1) else whole


def _unit(  # noqa: PLR0911 - one case for each kind
    tariff: Tariff, usage: Usage, default_steps: int | None
) -> str:
    """Say what an order is charged by."""
    count, pixels = len(usage.images), usage.images[0][0] * usage.images[0][1]
    images = f"{count} x " if count > 1 else ""
    match tariff:
        case PerImage():
            price = tariff.price + (tariff.with_reference if usage.references else 0)
            return f"{count} image{'s' if count > 1 else ''} x ${_usd(price)}"
        case PerRequest():
            return f"1 request x ${_usd(tariff.price)}"
        case PerMegapixel():
            return images + _megapixel_unit(tariff, pixels, usage, default_steps)
        case ResolutionTable():
            most = next((most for most, _ in tariff.rows if pixels <= most), None)
            size = f"{-(-pixels // tariff.pixels)} started MP" if most is None else f"image up to {most:,} px"
            return f"{images}{size} = ${_usd(price_of_area(tariff, pixels))}"
        case FirstMegapixel():
            further = max(-(-pixels // tariff.pixels), 1) - 1
            made = f"{images}(1 MP x ${_usd(tariff.first)} + {further} MP x ${_usd(tariff.further)})"
            return made + (_input_unit(tariff, usage, "up", tariff.further) if tariff.counts_inputs else "")
        case RunMegapixel():
            made = f"1 run x ${_usd(tariff.run)} + {images}{_shown(pixels, tariff.pixels, tariff.rounding)} MP"
            return f"{made} x ${_usd(tariff.output)}" + _input_unit(tariff, usage, tariff.rounding, tariff.input)
        case PerToken():
            tokens = usage.tokens or Tokens()
            return f"about {tokens.text_in + tokens.image_in} tokens in, {tokens.image_out} out"
        case ComputeSecond():
            return f"about {usage.machine_ns / 1e9:.3g} s x ${_usd(tariff.nano_usd_per_second)}/s"
        case MachineSecond():
            return f"about {usage.machine_ns / 1e9:.3g} s x ${_usd(tariff.nano_usd_per_hour)}/h"
        case _:
            assert_never(tariff)


def _megapixel_unit(tariff: PerMegapixel, pixels: int, usage: Usage, default_steps: int | None) -> str:
    """Say the megapixels of one picture, and the steps where they raise its price."""
    steps = default_steps if usage.steps is None else usage.steps
    price = f"{_shown(pixels, tariff.pixels, tariff.rounding)} MP x ${_usd(tariff.price)}"
    if tariff.counts_inputs:
        price += _input_unit(tariff, usage, tariff.rounding, tariff.price)
    if steps and tariff.default_steps and steps > tariff.default_steps:
        return f"{price} x {steps}/{tariff.default_steps} steps"
    return price


def _input_unit(
    tariff: PerMegapixel | FirstMegapixel | RunMegapixel, usage: Usage, rounding: Rounding, price: NanoUsd
) -> str:
    """Say the megapixels that went in, where any did."""
    if not usage.references:
        return ""
    megapixels, per = _input_megapixels(tariff, usage, rounding)
    return f" + {_shown(megapixels, per, 'exact')} input MP x ${_usd(price)}"


@lru_cache(maxsize=1024)
def _shown(area: int, pixels: int, rounding: Rounding) -> str:
    """Megapixels as people read them. Sizes are few, too."""
    return str(-(-area // pixels)) if rounding == "up" else f"{area / pixels:.6f}".rstrip("0").rstrip(".")


def _rounding(rounding: Rounding) -> str:
    return "each image rounded up" if rounding == "up" else "by the pixel"


def _inputs(tariff: PerMegapixel | FirstMegapixel) -> str:
    return f", input pictures too{_largest(tariff.largest_input)}" if tariff.counts_inputs else ""


def _largest(largest_input: int | None) -> str:
    return "" if largest_input is None else f" (none as more than {largest_input} MP)"
