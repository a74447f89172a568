"""An order in fal's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from providers.contract import Order, Safety
from providers.errors import Unsupported
from providers.picture import format_of, steps_of

_TOLERANCE: Final[Mapping[Safety, str]] = {"strict": "1", "standard": "2", "relaxed": "5"}
"""A string, not a number, at every Pro endpoint; "2" is fal's own default, "5" the most that all of them take."""


def fields_of(order: Order, *, sync_mode: bool) -> dict[str, object]:
    """Say an order in fal's words; raises `Unsupported` for what they cannot say."""
    asked, able = order.request, order.abilities
    if asked.operation not in able.operations or asked.operation == "upscale":
        raise Unsupported(f"{order.endpoint} does not {asked.operation} here")
    if asked.mask and not able.mask:
        raise Unsupported(f"{order.endpoint} takes no mask")
    if asked.count > able.max_count:
        raise Unsupported(f"{order.endpoint} draws at most {able.max_count} pictures an order, not {asked.count}")
    wanted: dict[str, object | None] = {
        "prompt": None if asked.operation == "remove_background" else asked.prompt,
        **_size(order),
        "num_images": asked.count if able.max_count > 1 else None,
        "seed": asked.seed if able.seed else None,
        "num_inference_steps": steps_of(order),
        "guidance_scale": asked.guidance if able.guidance else None,
        "negative_prompt": asked.negative_prompt if able.negative_prompt else None,
        "strength": asked.strength if able.strength else None,
        "loras": [{"path": lora.path, "scale": lora.scale} for lora in asked.loras] or None,
        "output_format": format_of(order) if len(able.formats) > 1 else None,
        "sync_mode": True if sync_mode else None,
        **_safety(order),
    }
    return {name: value for name, value in wanted.items() if value is not None} | dict(able.fixed)


def _size(order: Order) -> dict[str, object]:
    asked, able = order.request, order.abilities
    if not able.sizes.allows(asked.width, asked.height):
        raise Unsupported(f"{order.endpoint} does not draw {asked.width}x{asked.height}")
    match able.size_dialect:
        case "image_size":
            return {"image_size": {"width": asked.width, "height": asked.height}}
        case "width_height":
            return {"width": asked.width, "height": asked.height}
        case "size":
            return {"size": f"{asked.width}x{asked.height}"}
        case "aspect_ratio":
            name = able.sizes.name_of(asked.width, asked.height)
            if name is None:
                raise Unsupported(f"{order.endpoint} knows sizes by name, and {asked.width}x{asked.height} has none")
            return {"aspect_ratio": name}
        case "input":
            return {}
        case "aspect_ratio_megapixels" | "custom_ratio":
            raise Unsupported(f"fal has no words for sizes by {able.size_dialect}")


def _safety(order: Order) -> dict[str, object]:
    match order.abilities.safety_dialect:
        case "checker":
            return {"enable_safety_checker": order.request.safety != "relaxed"}
        case "tolerance":
            return {"safety_tolerance": _TOLERANCE[order.request.safety]}
        case "disable_checker":
            return {"disable_safety_checker": order.request.safety == "relaxed"}
        case "none":
            return {}
