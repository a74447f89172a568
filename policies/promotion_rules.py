"""Preview to export: which intents promote, what a promoted picture keeps, and when there is nothing to gain."""

from __future__ import annotations

from msgspec.structs import replace

from policies.policy import Intent, Policy
from policies.types import Tier
from providers.contract import ImageRequest


class NotPromotable(ValueError):
    """This picture cannot be promoted this way; the message says why and what would work."""


def promoting_intent(policy: Policy, name: str, drawn: Tier) -> Intent:
    """The intent to draw a picture of tier `drawn` again under; raises `NotPromotable`."""
    targets = {intent.name: intent for intent in policy.intents.values() if intent.promotes is not None}
    intent = targets.get(name)
    if intent is None:
        raise NotPromotable(f"'{name}' promotes nothing; intents that do: {', '.join(targets) or 'none'}")
    if intent.tier < drawn:
        raise NotPromotable(f"'{name}' earns tier {intent.tier.word}; the picture is of tier {drawn.word} already")
    return intent


def promoted_request(
    original: ImageRequest, seed: int | None, intent: Intent, auto_size: tuple[int, int]
) -> ImageRequest:
    """What to draw again: one picture, with what `intent.keeps` of the one that was liked.

    The prompt is always kept: without it this would be another picture. `seed` is the picture's own, which the call
    may not have named. Steps, guidance and LoRAs belong to the model that drew the preview, so they are left behind.
    """
    width, height = (original.width, original.height) if "aspect" in intent.keeps else auto_size
    return replace(
        original,
        count=1,
        seed=seed if "seed" in intent.keeps else None,
        width=width,
        height=height,
        steps=None,
        guidance=None,
        negative_prompt=None,
        loras=(),
    )
