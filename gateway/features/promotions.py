"""Draws a liked preview again at export tier: finds what was asked, keeps what the policy says, makes a new call."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import InvalidRequest, NotFound
from gateway.requests.call import Call, Caller
from gateway.storage.database import Database
from gateway.storage.rows import AssetRow, RecipeRow
from policies.policy import Intent, Policy
from policies.promotion_rules import NotPromotable, promoted_request, promoting_intent
from policies.types import Constraints, Tier
from providers.contract import ImageRequest


class Original(Struct, frozen=True, kw_only=True):
    """A picture to promote, and what its call asked for."""

    asset: AssetRow
    recipe: RecipeRow
    intent: Intent
    """What it is to be drawn again under."""

    @property
    def model(self) -> str:
        """The model name its caller used."""
        return str(self.recipe.request.get("model") or "auto")


async def find_original(db: Database, policy: Policy, caller: Caller, image_id: str, intent: str) -> Original:
    """The caller's own picture; raises `NotFound` (no such picture, erased) or `InvalidRequest` (nothing to gain)."""
    asset = await db.asset(image_id, caller.team)
    recipe = await db.recipe(asset.call_id) if asset else None
    if asset is None:
        raise NotFound(f"There is no image '{image_id[:80]}'.", param="id")
    if recipe is None:
        raise NotFound(f"What image '{asset.id}' was drawn from has been erased.", param="id")
    if recipe.request.get("references"):
        raise InvalidRequest(
            "An edited image cannot be promoted: the pictures it was made from are not kept. "
            "Send them again to POST /v1/images/edits with 'intent': 'export'.",
            param="id",
        )
    try:
        return Original(asset=asset, recipe=recipe, intent=promoting_intent(policy, intent, Tier[asset.tier.upper()]))
    except NotPromotable as error:
        raise InvalidRequest(f"This image cannot be promoted: {error}.", param="intent") from None


def promotion(
    original: Original,
    policy: Policy,
    *,
    caller: Caller,
    constraints: Constraints,
    size: tuple[int, int] | None,
    call_id: str,
    arrived: float,
) -> Call:
    """The call that draws it again; `size` in pixels overrides what is kept."""
    asked = original.recipe.request
    request = promoted_request(
        msgspec.convert(asked, ImageRequest), original.asset.seed, original.intent, policy.auto_size
    )
    if size is not None:
        request = replace(request, width=size[0], height=size[1])
    return Call(
        id=call_id,
        caller=caller,
        request=request,
        constraints=constraints,
        worth=original.intent.worth,
        intent=original.intent.name,
        compression=_whole(asked, "compression"),
        user=original.recipe.user,
        tags=msgspec.convert(asked.get("tags") or {}, dict[str, str]),
        shadow=asked.get("shadow") is not False,
        parent=original.asset.id,
        purpose="promotion",
        arrived=arrived,
    )


def _whole(asked: Mapping[str, object], name: str) -> int | None:
    value = asked.get(name)
    return value if isinstance(value, int) else None
