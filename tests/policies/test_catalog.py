from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from textwrap import dedent
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.yaml_files import BadFile, read_bytes
from policies.catalog import AccountTerms, BadCatalog, Catalog, TeamCalls, compile_offers
from policies.catalog_file import ModelFile, Price, SyncedFile
from policies.money import USD, to_usd
from policies.price_book import PriceRow
from policies.tariffs import (
    ComputeSecond,
    FirstMegapixel,
    MachineSecond,
    PerImage,
    PerMegapixel,
    PerRequest,
    PerToken,
    ResolutionTable,
    RunMegapixel,
    Tariff,
)
from policies.types import Capacity, DataTerms, Licence, Tier
from providers.contract import SizeRule

Values = dict[str, object]

OFFER: Values = {
    "provider": "fal",
    "endpoint": "fal-ai/flux/dev",
    "price": {"per_megapixel": "$0.025", "pixels": 1_048_576, "rounding": "up"},
    "abilities": {"sizes": {"min": 256, "max": 2048, "multiple": 16}, "steps": {"max": 50, "default": 28}},
    "typical_seconds": 3.5,
    "source": "model page",
    "checked_on": "2026-11-21",
}
MODEL: Values = {
    "model": "flux-dev",
    "tier": "standard",
    "title": "FLUX.1 [dev]",
    "licence": {"name": "non-commercial weights", "commercial": False},
    "offers": [OFFER],
}
FAL = AccountTerms(name="fal", kind="fal", slots=10)
ENDS_EARLY = "the table ends at {} px but pictures of 4,194,304 px are sold; add a row or beyond_per_megapixel"
REFERENCE = Path(__file__).parents[2] / "docs/reference/tariffs.md"


def model(**changes: object) -> ModelFile:
    return ModelFile.model_validate({**deepcopy(MODEL), **changes})


def offer(**changes: object) -> Values:
    return {**deepcopy(OFFER), **changes}


def price(**fields: object) -> Price:
    return Price.model_validate(fields)


def agreed(tariff: Tariff) -> PriceRow:
    return PriceRow(tariff=tariff)


def faults_of(models: list[ModelFile], *accounts: AccountTerms) -> list[str]:
    with pytest.raises(BadCatalog) as caught:
        compile_offers(models, accounts, revision=1)
    return [f"{fault.document} {'.'.join(map(str, fault.loc))}: {fault.message}" for fault in caught.value.faults]


def compiled(*models: ModelFile, accounts: tuple[AccountTerms, ...] = (FAL,)) -> Catalog:
    return compile_offers(models, accounts, revision=7)


def test_every_account_of_a_kind_sells_the_model_under_its_own_name() -> None:
    catalog = compiled(
        model(), accounts=(FAL, AccountTerms(name="fal-eu", kind="fal"), AccountTerms(name="t", kind="together"))
    )
    assert list(catalog.offers) == ["fal:flux-dev", "fal-eu:flux-dev"]
    assert [sold.account for sold in catalog.by_model["flux-dev"]] == ["fal", "fal-eu"]
    assert catalog.models["flux-dev"].offers == ("fal:flux-dev", "fal-eu:flux-dev")
    assert catalog.revision == 7


def test_an_offer_carries_what_the_document_says() -> None:
    sold = compiled(model()).offers["fal:flux-dev"]
    assert sold.tier is Tier.STANDARD
    assert sold.tariff == PerMegapixel(25_000_000)
    assert sold.abilities.sizes == SizeRule(min_side=256, max_side=2048, multiple=16)
    assert (sold.abilities.steps, sold.abilities.default_steps) == ((1, 50), 28)
    assert (sold.typical_s, sold.source, sold.checked_on) == (3.5, "model page", "2026-11-21")


def test_limits_data_terms_and_team_come_from_the_account() -> None:
    terms = DataTerms(region="eu", retention_days=1, trains=False)
    account = AccountTerms(name="ours", kind="fal", slots=4, rate=2.5, burst=5, data=terms, team="brand")
    catalog = compiled(model(), accounts=(account,))
    sold = catalog.offers["ours:flux-dev"]
    assert sold.capacities == ("ours", "ours/rate")
    assert catalog.capacities["ours"] == Capacity(id="ours", slots=4)
    assert catalog.capacities["ours/rate"] == Capacity(id="ours/rate", rate=2.5, burst=5)
    assert (sold.data, sold.team) == (terms, "brand")


@pytest.mark.parametrize(
    ("calls", "kept"), [("also", (False, False)), ("models", (True, False)), ("all", (True, True))]
)
@pytest.mark.parametrize("absent", [False, True])
def test_what_a_teams_own_account_sells_is_kept_from_it_elsewhere_as_the_account_says(
    calls: TeamCalls, kept: tuple[bool, bool], *, absent: bool
) -> None:
    own = AccountTerms(name="own", kind="fal", team="acme", team_calls=calls, models=frozenset({"flux-dev"}))
    here, away = ((FAL,), (own,)) if absent else ((FAL, own), ())
    files = (model(), model(model="flux-pro"))
    offers = compile_offers(files, here, 1, absent=away).offers
    assert tuple("acme" in offers[name].kept_from for name in ("fal:flux-dev", "fal:flux-pro")) == kept
    assert all(offer.kept_from <= {"acme"} for offer in offers.values())
    assert ("own:flux-dev" in offers) is not absent
    assert absent or not offers["own:flux-dev"].kept_from


def test_an_account_can_have_its_own_price_and_its_own_models() -> None:
    own = AccountTerms(name="volume", kind="fal", prices={"flux-dev": agreed(PerMegapixel(20_000_000))})
    other = AccountTerms(name="small", kind="fal", models=frozenset({"flux-pro"}))
    catalog = compiled(model(), model(model="flux-pro"), accounts=(own, other))
    assert catalog.offers["volume:flux-dev"].tariff == PerMegapixel(20_000_000)
    assert catalog.offers["volume:flux-pro"].tariff == PerMegapixel(25_000_000)
    assert [sold.id for sold in catalog.by_model["flux-dev"]] == ["volume:flux-dev"]


def test_a_model_that_nobody_sells_is_known_but_not_to_be_had() -> None:
    catalog = compiled(model(), accounts=())
    assert catalog.by_model == {"flux-dev": ()}
    assert catalog.resolve("flux-dev") == "flux-dev"
    assert not catalog.offers


def test_aliases_lead_to_their_model() -> None:
    catalog = compiled(model(aliases=["flux-1-dev"]))
    assert catalog.resolve("flux-1-dev") == "flux-dev"
    assert catalog.resolve("flux-2-dev") is None


def test_a_seller_can_grant_what_the_weights_do_not() -> None:
    granted = offer(licence={"name": "seller's terms", "commercial": True})
    own = offer(provider="selfhosted")
    accounts = (FAL, AccountTerms(name="pool", kind="selfhosted"))
    catalog = compiled(model(offers=[granted, own]), accounts=accounts)
    assert catalog.offers["fal:flux-dev"].licence == Licence(name="seller's terms", commercial=True)
    assert catalog.offers["pool:flux-dev"].licence == Licence(name="non-commercial weights", commercial=False)


@pytest.mark.parametrize(
    ("typed", "nano"),
    [("$0.0027", 2_700_000), ("0.0027", 2_700_000), (0.0027, 2_700_000), ("$ 3", 3 * 10**9), (2, 2 * 10**9)],
)
def test_dollars_are_read_as_people_type_them(typed: object, nano: int) -> None:
    assert price(per_image=typed).tariff() == PerImage(nano)


@given(st.integers(1, 10**12))
def test_typed_dollars_reach_the_tariff_to_the_nano_dollar(nano: int) -> None:
    assert price(per_image=f"${to_usd(nano)}").tariff() == PerImage(nano)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("free", "expected dollars such as"),
        ("€0.03", "expected dollars such as"),
        (True, "expected dollars such as"),
        ("nan", "from \\$0 to"),
        ("-0.03", "from \\$0 to"),
        (25_000_000, "are these cents or nano-dollars"),
        ("0.0000000001", "finer than a nano-dollar"),
        ("$0", "write `price: {free: true}`"),
        (0, "write `price: {free: true}`"),
    ],
)
def test_an_amount_that_cannot_be_a_price_is_refused(typed: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        price(per_image=typed)


def test_each_way_to_charge_becomes_its_tariff() -> None:
    assert price(free=True).tariff() == PerImage(0)
    assert price(per_machine_hour="$0.34").tariff() == MachineSecond(340_000_000)
    assert price(first_megapixel="$0.03", further_megapixel="$0.015", pixels=1_048_576).tariff() == FirstMegapixel(
        30_000_000, 15_000_000
    )
    assert price(per_image="$0.04", with_reference="$0.01").tariff() == PerImage(40_000_000, 10_000_000)
    assert price(per_request="$0.10").tariff() == PerRequest(100_000_000)
    second = price(per_compute_second="$0.000975", hardware="gpu-l40s").tariff()
    assert second == ComputeSecond(975_000, "gpu-l40s")
    whole = {"pixels": 1_048_576, "rounding": "up"}
    run = price(per_run="$0.015", output_megapixel="$0.02", input_megapixel="$0.01", largest_input=4, **whole)
    assert run.tariff() == RunMegapixel(15_000_000, 20_000_000, 10_000_000, largest_input=4)
    both = price(per_megapixel="$0.012", counts_inputs=True, largest_input=4, **whole)
    assert both.tariff() == PerMegapixel(12_000_000, counts_inputs=True, largest_input=4)
    per_token = {"text_in": "$5", "image_in": "$8", "image_out": "$32"}
    tokens = price(per_million_tokens=per_token, tokens={"made": {"1024x1024": 1056}, "given": 4, "given_at_most": 9})
    assert tokens.tariff() == PerToken(5 * USD, 8 * USD, 32 * USD, ((1024, 1024, 1056),), 4, 9)
    by_pixel = price(per_megapixel="$0.0027", pixels=1_000_000, rounding="exact", default_steps=4)
    assert by_pixel.tariff() == PerMegapixel(2_700_000, 1_000_000, "exact", 4)
    rows = [{"up_to": "512x512", "price": "$0.02"}, {"up_to": 1_048_576, "price": "$0.04"}]
    assert price(by_size=rows).tariff() == ResolutionTable(((262_144, 20_000_000), (1_048_576, 40_000_000)))
    beyond = price(by_size=rows, beyond_per_megapixel="$0.04", pixels=1_000_000).tariff()
    assert isinstance(beyond, ResolutionTable)
    assert (beyond.beyond, beyond.pixels) == (40_000_000, 1_000_000)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of .*; found none"),
        ({"per_image": None}, "found none"),
        ({"per_image": 1, "per_machine_hour": 2}, "found per_image and per_machine_hour"),
        ({"per_megapixel": 1}, "also needs pixels and rounding"),
        ({"first_megapixel": 1, "pixels": 1_000_000}, "also needs further_megapixel"),
        ({"per_image": 1, "rounding": "up"}, "rounding means nothing beside per_image"),
        ({"per_run": 1, "pixels": 9, "rounding": "up"}, "also needs input_megapixel and output_megapixel"),
        ({"per_compute_second": 1}, "also needs hardware"),
        ({"per_request": 1, "with_reference": 1}, "with_reference means nothing beside per_request"),
        (
            {"per_megapixel": 1, "pixels": 9, "rounding": "up", "largest_input": 4},
            "largest_input means something only where",
        ),
        ({"per_million_tokens": {"text_in": 5, "image_in": 8, "image_out": 32}}, "also needs tokens"),
        ({"per_million_tokens": {"text_in": 5, "image_in": 8}}, "image_out\n +Field required"),
        ({"tokens": {"made": {"9x9": 1}, "given": 4}}, "given and given_at_most belong together"),
        ({"tokens": {"made": {"9x9": 1}, "given": 4, "given_at_most": 3}}, "given 4 is above given_at_most 3"),
        ({"tokens": {"made": {"9x9": 0}}}, "greater than 0"),
        ({"free": False}, "True"),
        ({"by_size": []}, "at least 1"),
        ({"by_size": [{"up_to": "1x2", "price": 1}], "beyond_per_megapixel": 1}, "also needs pixels"),
        ({"by_size": [{"up_to": "9x9", "price": 1}, {"up_to": 81, "price": 2}]}, "from small to large, each size once"),
        ({"by_size": [{"up_to": "9 by 9", "price": 1}]}, "expected a size such as 1024x768"),
        ({"by_size": [{"up_to": "0x9", "price": 1}]}, "at least one pixel"),
    ],
)
def test_a_price_that_leaves_something_open_is_refused(fields: Values, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Price.model_validate(fields)


def test_the_reference_shows_every_kind_of_tariff_and_only_valid_prices() -> None:
    text = REFERENCE.read_text()
    shown = re.findall(r"^ {4}price:(?: \{.*\}|\n(?: {6}.*\n)+)", text, flags=re.MULTILINE)
    kinds = set()
    for block in shown:
        values = read_bytes(dedent(block).encode(), "tariffs.md").data
        assert isinstance(values, dict)
        tariff = Price.model_validate(values["price"]).tariff()
        kinds.add(type(tariff))
        assert f"`{tariff.__struct_config__.tag}`" in text
    assert kinds == set(get_args(Tariff))


def test_an_offer_without_a_price_is_refused() -> None:
    unpriced = offer()
    del unpriced["price"]
    with pytest.raises(ValidationError, match=r"offers\.0\.price\n\s+Field required"):
        model(offers=[unpriced])


@pytest.mark.parametrize(
    ("sizes", "rule"),
    [
        ({"named": {"16:9": "2752x1536"}}, SizeRule(named={"16:9": (2752, 1536)})),
        ({"only": ["1024x1024", "1365x1024"]}, SizeRule(named={"1024x1024": (1024, 1024), "1365x1024": (1365, 1024)})),
        (
            {"min": 64, "max": 1440, "multiple": 32, "max_pixels": "1440x720"},
            SizeRule(min_side=64, max_side=1440, multiple=32, max_pixels=1_036_800),
        ),
    ],
)
def test_sizes_are_a_range_a_list_or_names(sizes: Values, rule: SizeRule) -> None:
    sold = compiled(model(offers=[offer(abilities={"sizes": sizes})])).offers["fal:flux-dev"]
    assert sold.abilities.sizes == rule


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({}, "needs min, max and multiple"),
        ({"min": 256, "max": 1024}, "needs min, max and multiple"),
        ({"min": 2048, "max": 1024, "multiple": 8}, "min 2048 is above max 1024"),
        ({"only": ["1024x1024"], "max": 2048}, "either named, or only these, or a range"),
        ({"only": [], "named": {}}, "at least 1"),
        ({"only": ["1024"]}, "expected a size such as 1024x768, got '1024'"),
    ],
)
def test_sizes_that_leave_something_open_are_refused(sizes: Values, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        model(offers=[offer(abilities={"sizes": sizes})])


def test_default_steps_lie_within_the_steps_on_offer() -> None:
    steps = {"max": 12, "default": 28}
    with pytest.raises(ValidationError, match="default 28 lies outside 1 to 12"):
        model(offers=[offer(abilities={"sizes": {"only": ["512x512"]}, "steps": steps})])


def test_a_name_used_twice_is_a_fault_at_each_later_place() -> None:
    files = [model(aliases=["dev", "auto"]), model(), model(model="flux-pro", aliases=["dev"])]
    assert faults_of(files, FAL) == [
        "0 aliases.1: 'auto' is already the name of the gateway, which chooses by itself when a caller says auto",
        "1 model: 'flux-dev' is already the name of model flux-dev",
        "2 aliases.0: 'dev' is already the name of model flux-dev",
    ]


def test_a_model_may_be_sold_at_one_endpoint_for_each_operation() -> None:
    edit = offer(
        endpoint="fal-ai/flux/dev/image-to-image",
        price={"per_image": "$0.03"},
        abilities={
            "operations": ["edit"],
            "sizes": {"only": ["512x512"]},
            "references": {"max": 1, "dialect": "image_url"},
        },
    )
    files = [model(offers=[edit, offer()])]
    own = AccountTerms(name="own", kind="fal", prices={"flux-dev/edit": agreed(PerImage(20_000_000))})
    offers = compile_offers(files, [FAL, own], 1).offers
    assert {name: found.endpoint for name, found in offers.items()} == {
        "fal:flux-dev/edit": "fal-ai/flux/dev/image-to-image",
        "own:flux-dev/edit": "fal-ai/flux/dev/image-to-image",
        "fal:flux-dev": "fal-ai/flux/dev",
        "own:flux-dev": "fal-ai/flux/dev",
    }
    assert offers["own:flux-dev/edit"].tariff == PerImage(20_000_000)
    assert offers["own:flux-dev"].tariff == PerMegapixel(25_000_000)


def test_one_provider_has_one_offer_of_a_model_and_operation() -> None:
    files = [model(offers=[offer(), offer(endpoint="fal-ai/flux-1/dev")])]
    assert faults_of(files) == [
        "0 offers.1.provider: fal already sells flux-dev for generate above; one offer for each operation"
    ]


def test_a_table_must_price_every_size_that_is_sold() -> None:
    table = {"by_size": [{"up_to": "1024x1024", "price": "$0.04"}]}
    assert faults_of([model(offers=[offer(price=table)])]) == [f"0 offers.0.price: {ENDS_EARLY.format('1,048,576')}"]
    small = offer(price=table, abilities={"sizes": {"only": ["1024x1024", "512x512"]}})
    assert compiled(model(offers=[small])).offers


def test_tokens_must_be_told_of_every_size_and_input_that_is_sold() -> None:
    per_token = {"text_in": "$5", "image_in": "$8", "image_out": "$32"}
    priced = {"per_million_tokens": per_token, "tokens": {"made": {"1024x1024": 1056}}}
    assert faults_of([model(offers=[offer(price=priced)])]) == [
        "0 offers.0.price: tokens.made names sizes one by one, so abilities.sizes must do so, too: `only` or `named`"
    ]
    more = {"sizes": {"only": ["1024x1024", "1536x1024"]}, "references": {"max": 2, "dialect": "images"}}
    assert faults_of([model(offers=[offer(price=priced, abilities=more)])]) == [
        "0 offers.0.price: tokens.made says nothing of 1536x1024, which is sold",
        "0 offers.0.price: input pictures are taken, so tokens needs given and given_at_most",
    ]


def test_steps_are_priced_by_the_default_the_endpoint_runs() -> None:
    priced = {"per_megapixel": 1, "pixels": 1_000_000, "rounding": "exact", "default_steps": 4}
    stepless = offer(price=priced, abilities={"sizes": {"only": ["512x512"]}})
    assert faults_of([model(offers=[offer(price=priced)])]) == [
        "0 offers.0.price: default_steps 4 differs from abilities.steps.default 28"
    ]
    assert faults_of([model(offers=[stepless])]) == [
        "0 offers.0.price: default_steps 4 prices steps, but abilities.steps says none can be asked for"
    ]


def test_ratios_need_names_for_their_sizes() -> None:
    abilities = {"sizes": {"only": ["512x512"]}, "size_dialect": "aspect_ratio"}
    assert faults_of([model(offers=[offer(abilities=abilities)])]) == [
        "0 offers.0.abilities.sizes: size_dialect aspect_ratio needs named sizes, each under its ratio"
    ]


def test_accounts_may_only_name_what_the_catalogue_sells_of_their_kind() -> None:
    account = AccountTerms(
        name="fal",
        kind="fal",
        models=frozenset({"flux-dve"}),
        prices={"flux-dev2": agreed(PerImage(1)), "nothing": agreed(PerImage(1))},
    )
    table = AccountTerms(name="fal", kind="fal", prices={"flux-dev": agreed(ResolutionTable(((64, 1),)))})
    assert faults_of([model()], account, table) == [
        "None accounts.fal.models: no fal offer of 'flux-dve' in the catalogue (did you mean 'flux-dev'?)",
        "None accounts.fal.prices.flux-dev2: no fal offer of 'flux-dev2' in the catalogue (did you mean 'flux-dev'?)",
        "None accounts.fal.prices.nothing: no fal offer of 'nothing' in the catalogue",
        "None accounts.fal: two accounts are called 'fal'",
        f"None accounts.fal.prices.flux-dev: {ENDS_EARLY.format(64)}",
    ]


def test_a_document_with_many_faults_names_each_with_its_line_and_the_nearest_right_word() -> None:
    text = b"""\
model: Flux Dev
tier: standart
title: FLUX.1 [dev]
licence: {name: x, commercial: true}
offers:
  - provider: fal
    endpoint: fal-ai/flux/dev
    abilities:
      sizes: {min: 256, max: 2048, multiple: 16}
      stepps: {max: 50, default: 28}
      formats: [jpg]
    typical_seconds: 0
    source: model page
    checked_on: yesterday
"""
    with pytest.raises(BadFile) as caught:
        read_bytes(text, "flux-dev.yaml").parse(ModelFile)
    said = {(fault.line, fault.hint) for fault in caught.value.faults}
    assert {line for line, _ in said} == {1, 2, 6, 10, 11, 12, 14}
    assert (2, "did you mean 'standard'?") in said
    assert (10, "did you mean 'steps'?") in said
    assert (11, "did you mean 'jpeg'?") in said
    assert (6, "add `price: ...`") in said


def test_our_own_machines_cost_their_hour_and_weigh_what_an_order_adds() -> None:
    own = offer(provider="selfhosted", price={"per_machine_hour": "$0.34"})
    accounts = (
        AccountTerms(name="listed", kind="selfhosted"),
        AccountTerms(name="own", kind="selfhosted", machine_hour=2 * 10**9, marginal_hour=10**9),
        AccountTerms(
            name="agreed", kind="selfhosted", machine_hour=2 * 10**9, prices={"flux-dev": agreed(PerImage(5))}
        ),
    )
    offers = compiled(model(offers=[own]), accounts=accounts).offers
    assert [(each.tariff, each.counted) for each in offers.values()] == [
        (MachineSecond(340_000_000), 1.0),
        (MachineSecond(2 * 10**9), 0.5),
        (PerImage(5), 1.0),
    ]


def test_a_successor_that_nobody_knows_is_refused_with_what_was_meant() -> None:
    ending = model(offers=[offer(retires="2026-12-15", successor="flux-deb")])
    with pytest.raises(
        BadCatalog, match=r"offers\.0\.successor: there is no model 'flux-deb' .*did you mean 'flux-dev'"
    ):
        compile_offers([ending], [FAL], 1)


def test_a_row_of_synced_prices_says_one_thing_and_all_of_it() -> None:
    row = {"offer": "fal:flux-dev", "valid_from": "2026-12-01", "source": "list", "checked_on": "2026-11-26"}
    for fields, why in (
        ({}, "either unit_price or retires"),
        ({"unit_price": "$0.026"}, "unit_price and instead_of belong together"),
        ({"unit_price": "$0", "instead_of": "$0.025"}, "a price of \\$0 is refused"),
        ({"unit_price": "$0.026", "instead_of": "$0.025", "retires": "2026-12-15"}, "either unit_price or retires"),
    ):
        with pytest.raises(ValidationError, match=why):
            SyncedFile.model_validate({"synced": [row | fields]})
