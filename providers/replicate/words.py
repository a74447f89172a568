"""An order in Replicate's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from providers.contract import Order, Safety
from providers.errors import (
    Unsupported,
)
from providers.picture import format_of, steps_of

_TOLERANCE: Final[Mapping[Safety, int]] = {"strict": 1, "standard": 2, "relaxed": 5}
"""A number, not a string; 2 is Replicate's own default, 5 the most that all of the Pro models take."""
_TOLERANCE_WITH_INPUTS: Final = 2
"""The most that models take with input pictures."""


def fields_of(order: Order) -> dict[str, object]:
    """Say an order in Replicate's words; raises `Unsupported` for what they cannot say."""
    asked, able = order.request, order.abilities
    if asked.operation not in able.operations:
        raise Unsupported(f"{order.endpoint} does not {asked.operation} here")
    if asked.count > able.max_count:
        raise Unsupported(f"{order.endpoint} draws at most {able.max_count} pictures an order, not {asked.count}")
    if len(asked.loras) > 1:
        raise Unsupported(f"{order.endpoint} takes one LoRA, not {len(asked.loras)}")
    wanted: dict[str, object | None] = {
        "prompt": asked.prompt or None,
        **_size(order),
        "num_outputs": asked.count if able.max_count > 1 else None,
        "seed": asked.seed if able.seed else None,
        "num_inference_steps": steps_of(order),
        "guidance": asked.guidance if able.guidance else None,
        "negative_prompt": asked.negative_prompt if able.negative_prompt else None,
        "prompt_strength": asked.strength if able.strength else None,
        "lora_weights": asked.loras[0].path if asked.loras else None,
        "lora_scale": asked.loras[0].scale if asked.loras else None,
        "output_format": _format(order) if len(able.formats) > 1 else None,
        **_safety(order),
    }
    return {name: value for name, value in wanted.items() if value is not None} | dict(able.fixed)


def _format(order: Order) -> str:
    chosen = format_of(order)
    return "jpg" if chosen == "jpeg" else chosen


def _size(order: Order) -> dict[str, object]:
    asked, able = order.request, order.abilities
    if able.size_dialect == "input":
        return {}
    if not able.sizes.allows(asked.width, asked.height):
        raise Unsupported(f"{order.endpoint} does not draw {asked.width}x{asked.height}")
    match able.size_dialect:
        case "aspect_ratio":
            return {"aspect_ratio": _named(order)}
        case "aspect_ratio_megapixels":
            ratio, _, megapixels = _named(order).partition(" ")
            return {"aspect_ratio": ratio, "megapixels": megapixels}
        case "custom_ratio":
            return {"aspect_ratio": "custom", "width": asked.width, "height": asked.height}
        case "width_height":
            return {"width": asked.width, "height": asked.height}
        case "size":
            return {"size": f"{asked.width}x{asked.height}"}
        case "image_size":
            raise Unsupported(f"Replicate has no words for sizes by {able.size_dialect}")


def _named(order: Order) -> str:
    name = order.abilities.sizes.name_of(order.request.width, order.request.height)
    if name is None:
        size = f"{order.request.width}x{order.request.height}"
        raise Unsupported(f"{order.endpoint} knows sizes by name, and {size} has none")
    return name


def _safety(order: Order) -> dict[str, object]:
    match order.abilities.safety_dialect:
        case "tolerance":
            tolerance = _TOLERANCE[order.request.safety]
            return {"safety_tolerance": min(tolerance, _TOLERANCE_WITH_INPUTS) if order.inputs else tolerance}
        case "disable_checker":
            return {"disable_safety_checker": order.request.safety == "relaxed"}
        case "checker":
            raise Unsupported("Replicate has no words for a safety checker that is switched on")
        case "none":
            return {}
