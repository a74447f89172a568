from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.sandbox.endpoints import OPENAI, TOGETHER, Seller
from providers.sandbox.fal_endpoints import FAL
from providers.sandbox.invoice import PUBLISHED, PriceList, Work, charge
from providers.sandbox.replicate_endpoints import REPLICATE

_HAND_COMPUTED: Sequence[tuple[Seller, str, Sequence[tuple[int, int]], int | None, int]] = [
    ("fal", "fal-ai/flux/schnell", [(1024, 1024)], 4, 3_000_000),
    ("fal", "fal-ai/flux/schnell", [(256, 256), (1040, 1024)], 12, 9_000_000),
    ("fal", "fal-ai/flux/dev", [(512, 512)], 28, 25_000_000),
    ("fal", "fal-ai/flux/dev", [(1920, 1088)], 50, 50_000_000),
    ("fal", "fal-ai/flux/dev", [(2048, 2048)], 28, 100_000_000),
    ("fal", "fal-ai/flux-pro/v1.1", [(512, 512)], None, 20_000_000),
    ("fal", "fal-ai/flux-pro/v1.1", [(768, 768), (544, 512)], None, 60_000_000),
    ("fal", "fal-ai/flux-pro/v1.1", [(1024, 1024), (1440, 1440)], None, 120_000_000),
    ("fal", "fal-ai/flux-pro/v1.1-ultra", [(2752, 1536), (2048, 2048)], None, 120_000_000),
    ("fal", "fal-ai/flux-2", [(1024, 768)], 28, 12_000_000),
    ("fal", "fal-ai/flux-2/flash", [(1536, 1024)], None, 10_000_000),
    ("fal", "fal-ai/flux-2-flex", [(512, 512)], 28, 60_000_000),
    ("fal", "fal-ai/flux-2-pro", [(1024, 1024)], None, 30_000_000),
    ("fal", "fal-ai/flux-2-pro", [(1536, 1024)], None, 45_000_000),
    ("fal", "fal-ai/flux-2-pro", [(2048, 2048)], None, 75_000_000),
    ("fal", "fal-ai/flux-2-max", [(2048, 1024)], None, 140_000_000),
    ("fal", "fal-ai/recraft/v3/text-to-image", [(1820, 1024)], None, 30_000_000),
    ("together", "black-forest-labs/FLUX.1-schnell", [(1024, 1024)], 4, 2_831_155),
    ("together", "black-forest-labs/FLUX.1-schnell", [(1024, 1024)] * 4, 4, 11_324_621),
    ("together", "black-forest-labs/FLUX.1-schnell", [(1024, 1024)], 8, 5_662_310),
    ("together", "black-forest-labs/FLUX.1-schnell", [(1024, 1024)], 2, 2_831_155),
    ("together", "black-forest-labs/FLUX.1-schnell", [(512, 512)], None, 707_789),
    ("together", "black-forest-labs/FLUX.1.1-pro", [(1024, 1024)], 40, 41_943_040),
    ("together", "black-forest-labs/FLUX.2-dev", [(1920, 1920)] * 3, 50, 46_200_000),
    ("together", "black-forest-labs/FLUX.2-flex", [(256, 256)], 28, 30_000_000),
    ("together", "black-forest-labs/FLUX.2-pro", [(1024, 1024)], None, 30_000_000),
    ("together", "black-forest-labs/FLUX.2-max", [(1024, 1024)], None, 73_400_320),
]


@pytest.mark.parametrize(("seller", "endpoint", "sizes", "steps", "nano_usd"), _HAND_COMPUTED)
def test_orders_cost_what_the_published_tables_say(
    seller: Seller, endpoint: str, sizes: Sequence[tuple[int, int]], steps: int | None, nano_usd: int
) -> None:
    assert charge(PUBLISHED[seller, endpoint], Work(pictures=sizes, steps=steps)).nano_usd == nano_usd


def test_everything_sold_has_a_price() -> None:
    endpoints = (*FAL.values(), *TOGETHER.values(), *REPLICATE.values(), *OPENAI.values())
    sold = {(each.seller, each.id) for each in endpoints}
    assert set(PUBLISHED) == sold


@given(price=st.sampled_from(list(PUBLISHED.values())), steps=st.integers(1, 50), data=st.data())
def test_more_pictures_never_cost_less_and_none_cost_nothing(price: object, steps: int, data: st.DataObject) -> None:
    published = next(known for known in PUBLISHED.values() if known is price)
    sizes = data.draw(st.lists(st.tuples(st.integers(256, 2048), st.integers(256, 2048)), max_size=4))
    costs = [charge(published, Work(pictures=sizes[:count], steps=steps)).nano_usd for count in range(len(sizes) + 1)]
    assert costs == sorted(costs)
    assert costs[0] == 0


def test_a_changed_price_keeps_the_way_of_counting() -> None:
    prices = PriceList()
    prices.change("fal", "fal-ai/flux-2-pro", "0.04")
    work = Work(pictures=[(2048, 1024)])
    assert charge(prices.of("fal", "fal-ai/flux-2-pro"), work).nano_usd == 60_000_000
    prices.forget_changes()
    assert charge(prices.of("fal", "fal-ai/flux-2-pro"), work).nano_usd == 45_000_000
