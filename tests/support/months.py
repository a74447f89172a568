"""Orders for tests of reports: settled at a moment, for a price, with pictures and tags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.storage.database import Closing
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import AssetRow, Outcome, RecipeRow
from tests.support.books import asset, new_hold


async def order(
    db: SqliteDatabase,
    at: datetime,
    *,
    offer: str = "fal:flux-schnell",
    cost: int = 1000,
    charge: int | None = None,
    images: int = 1,
    size: tuple[int, int] = (1024, 1024),
    team: str = "acme",
    key_id: str = "key_1",
    tags: Mapping[str, str] | None = None,
    prompt: str | None = None,
    parent: str | None = None,
    operation: str = "generate",
    tier: str = "preview",
) -> AssetRow:
    """Place and settle one order; its first picture."""
    charge = cost if charge is None else charge
    account = offer.partition(":")[0]
    hold = replace(
        new_hold(max(cost, charge), team=team, key_id=key_id, account=account),
        offer_id=offer, width=size[0], height=size[1], count=max(images, 1),
    )  # fmt: skip
    await db.hold("own_1", [hold], [], at - timedelta(seconds=1))
    picture = asset(hold.attempt_id, team=team, parent=parent)
    picture = replace(picture, created=at, offer_id=offer, tier=tier, cost=charge)
    request: dict[str, object] = {
        "operation": operation,
        "prompt": prompt or hold.attempt_id,
        "width": size[0],
        "height": size[1],
    }
    recipe = RecipeRow(
        call_id=hold.call_id, team=team, user=None, request={**request, "tags": dict(tags or {})}, created=at
    )
    await db.close(
        Closing(
            attempt_id=hold.attempt_id,
            state="settled",
            at=at,
            cost=cost,
            charge=charge,
            outcome=Outcome(error=None if images else "bad_delivery", delivered=images),
            assets=(picture,) if images else (),
            recipe=recipe if images else None,
        )
    )
    return picture
