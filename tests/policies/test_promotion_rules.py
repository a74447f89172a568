from __future__ import annotations

import pytest
from msgspec.structs import replace

from policies.policy import Intent, Policy
from policies.promotion_rules import NotPromotable, promoted_request, promoting_intent
from policies.types import Tier
from providers.contract import ImageRequest, Lora

EXPORT = Intent(
    name="export", tier=Tier.EXPORT, slo=60.0, deadline=180.0, promotes="preview", keeps=("prompt", "seed", "aspect")
)
POLICY = Policy(
    name="default",
    revision=1,
    default_intent="preview",
    intents={"preview": Intent(name="preview", tier=Tier.PREVIEW, slo=3.0, deadline=60.0), "export": EXPORT},
    qualities={},
)
PREVIEW = ImageRequest(
    prompt="a red lighthouse", width=768, height=512, count=4, format="webp", steps=4, guidance=3.5, loras=(Lora("x"),)
)


def test_an_export_keeps_prompt_seed_and_size_and_leaves_the_previews_model_behind() -> None:
    request = promoted_request(PREVIEW, 7, EXPORT, (1024, 1024))
    assert request == ImageRequest(prompt="a red lighthouse", width=768, height=512, count=1, format="webp", seed=7)


def test_what_the_policy_does_not_keep_is_drawn_afresh() -> None:
    request = promoted_request(PREVIEW, 7, replace(EXPORT, keeps=("prompt",)), (1024, 1024))
    assert (request.seed, request.width, request.height) == (None, 1024, 1024)


@pytest.mark.parametrize("drawn", [Tier.PREVIEW, Tier.STANDARD, Tier.EXPORT])
def test_a_picture_may_be_promoted_to_a_tier_that_is_not_below_its_own(drawn: Tier) -> None:
    assert promoting_intent(POLICY, "export", drawn) == EXPORT


def test_promotion_never_lowers_the_tier() -> None:
    lower = replace(EXPORT, tier=Tier.STANDARD)
    with pytest.raises(NotPromotable, match="tier standard; the picture is of tier export already"):
        promoting_intent(replace(POLICY, intents={"export": lower}), "export", Tier.EXPORT)


@pytest.mark.parametrize("name", ["preview", "final"])
def test_an_intent_that_promotes_nothing_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(NotPromotable, match="intents that do: export"):
        promoting_intent(POLICY, name, Tier.PREVIEW)
