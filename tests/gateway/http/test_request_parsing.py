from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.errors import Forbidden, GatewayError, InvalidRequest
from gateway.http.bodies import decode_object
from gateway.http.generation_fields import KNOWN, MAX_SEED
from gateway.http.model_names import Names, names_of
from gateway.http.repeated_terms import KEPT, RepeatedTerms
from gateway.http.request_parsing import Wish, parse_generation, with_headers
from gateway.requests.call import Caller
from gateway.requests.parts import SEEDS
from policies.types import Tier
from providers.contract import Lora
from providers.sandbox.endpoints import FAL_PRESETS
from tests.gateway.http.conftest import catalog, policy

NAMES: Names = names_of(policy(), catalog())
CALLER = Caller(key_id="k", team="acme")


def parse(caller: Caller = CALLER, **fields: object) -> Wish:
    return parse_generation({"prompt": "a red lighthouse", **fields}, NAMES, caller)


def test_a_prompt_alone_is_a_preview_of_the_policys_size() -> None:
    wish = parse()
    assert (wish.request.width, wish.request.height, wish.request.count) == (1024, 1024, 1)
    assert (wish.request.format, wish.request.seed, wish.request.safety) == ("png", None, "standard")
    assert (wish.intent, wish.model, wish.response_format) == ("preview", "auto", "url")
    assert (wish.constraints.tier, wish.constraints.models, wish.constraints.ceiling) == (Tier.PREVIEW, None, None)
    assert (wish.constraints.slo, wish.constraints.deadline) == (3.0, 60.0)


def test_null_means_the_default_for_every_field() -> None:
    nothing = dict.fromkeys(KNOWN - {"prompt"})
    assert parse_generation({"prompt": "a red lighthouse"} | nothing, NAMES, CALLER) == parse()


def test_every_field_reaches_its_place() -> None:
    wish = parse(
        n=3, size="1536x864", output_format="webp", output_compression=80, moderation="low", user="u1", style="vivid",
        seed=7, num_inference_steps=4, guidance_scale=3.5, negative_prompt="blur", tags={"campaign": "autumn"},
        loras=[{"path": "a/b"}, {"path": "https://example.com:8443/c?v=1", "scale": 0.5}],
        parent="img_1", background="opaque", stream=False,
        partial_images=0, complexity="low", response_format="base64",
    )  # fmt: skip
    request = wish.request
    assert (request.width, request.height, request.count, request.format) == (1536, 864, 3, "webp")
    assert (request.seed, request.steps, request.guidance, request.negative_prompt) == (7, 4, 3.5, "blur")
    assert request.loras == (Lora("a/b", 1.0), Lora("https://example.com:8443/c?v=1", 0.5))
    assert (request.safety, len(wish.warnings)) == ("standard", 1)
    assert (wish.compression, wish.user, wish.tags, wish.parent) == (80, "u1", {"campaign": "autumn"}, "img_1")
    assert wish.response_format == "b64_json"


def test_other_servers_words_for_our_fields_mean_the_same() -> None:
    theirs = parse(steps=4, guidance=3, image_loras=[{"path": "a"}], width=512, height=768)
    ours = parse(num_inference_steps=4, guidance_scale=3, loras=[{"path": "a"}], size="512x768")
    assert theirs == ours
    assert parse(steps=None, num_inference_steps=4) == parse(num_inference_steps=4)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("square_hd", (1024, 1024)), ("square", (512, 512)), ("portrait_4_3", (768, 1024)),
     ("portrait_16_9", (576, 1024)), ("landscape_4_3", (1024, 768)), ("landscape_16_9", (1024, 576))],
)  # fmt: skip
def test_a_sellers_name_for_a_size_means_its_exact_pixels(name: str, pixels: tuple[int, int]) -> None:
    assert parse(size=name).request.size == pixels
    assert FAL_PRESETS[name] == pixels
    with pytest.raises(InvalidRequest, match=f"Did you mean '{name}'"):
        parse(size=name.replace("_", "-") + "x")


@pytest.mark.parametrize(
    ("quality", "intent"),
    [("low", "preview"), ("medium", "preview"), ("standard", "preview"), ("auto", "preview"), (None, "preview"),
     ("high", "export"), ("hd", "export"), ("xhigh", "export"), ("max", "export")],
)  # fmt: skip
def test_quality_means_an_intent_as_the_policy_says(quality: str | None, intent: str) -> None:
    assert parse(quality=quality).intent == intent
    assert parse(quality=quality, intent="standard").intent == "standard"


@pytest.mark.parametrize(
    ("model", "models", "prefer", "only"),
    [
        ("auto", None, "value", None),
        ("flux-dev", {"flux-dev"}, "value", None),
        ("black-forest-labs/FLUX.1-schnell", {"flux-schnell"}, "value", None),
        ("dall-e-3", None, "value", None),
        ("gpt-image-9-nova", None, "value", None),
        ("flux-dev:cheapest", {"flux-dev"}, "cheapest", None),
        ("auto:fastest", None, "fastest", None),
        ("flux-schnell:fal", {"flux-schnell"}, "value", {"fal"}),
        ("dall-e-3:together", None, "value", {"together"}),
    ],
)
def test_a_model_name_says_which_models_and_sellers_may_serve(
    model: str, models: set[str] | None, prefer: str, only: set[str] | None
) -> None:
    constraints = parse(model=model).constraints
    assert (constraints.models, constraints.prefer, constraints.only) == (models, prefer, only)


@pytest.mark.parametrize(
    ("model", "form"),
    [(None, "url"), ("dall-e-2", "url"), ("flux-dev", "url"), ("gpt-image-1", "b64_json"),
     ("chatgpt-image-latest", "b64_json")],
)  # fmt: skip
def test_apps_get_pictures_the_way_the_model_name_they_use_implies(model: str | None, form: str) -> None:
    assert parse(model=model).response_format == form
    assert parse(model=model, response_format="b64_json").response_format == "b64_json"
    assert parse(model=model, response_format="url").response_format == "url"


@pytest.mark.parametrize(
    ("amount", "nano"),
    [(0.1, 100_000_000), ("0.1", 100_000_000), (1, 10**9), (0, 0), (0.0027, 2_700_000),
     ("0.0000000019", 1), (1e-7, 100)],
)  # fmt: skip
def test_max_cost_is_exact_dollars(amount: object, nano: int) -> None:
    assert parse(max_cost=amount).constraints.ceiling == nano


def test_max_cost_is_for_the_whole_request() -> None:
    assert parse(max_cost=0.01, n=4).constraints.ceiling == 2_500_000
    assert parse(max_cost=0.01, n=3).constraints.ceiling == 3_333_333


def test_a_deadline_bounds_the_objective_too() -> None:
    constraints = parse(deadline_ms=1500).constraints
    assert (constraints.slo, constraints.deadline) == (1.5, 1.5)


def test_providers_narrow_who_may_serve() -> None:
    constraints = parse(
        providers={"only": ["fal", "together"], "ignore": ["replicate"], "order": ["together"]}
    ).constraints
    assert (constraints.only, constraints.ignore) == (frozenset({"fal", "together"}), frozenset({"replicate"}))
    assert constraints.order == ("together",)
    assert parse(providers={"only": []}).constraints.only is None


def test_a_safety_identifier_wins_over_user() -> None:
    wish = parse(user="u", safety_identifier="s")
    assert (wish.user, wish.safety_identifier) == ("s", "s")
    assert parse(user="u", safety_identifier="").user == "u"


def test_full_quality_is_no_compression_for_png() -> None:
    assert parse(output_compression=100).compression is None
    assert parse(output_compression=100, output_format="jpeg").compression == 100


def test_a_key_for_some_models_never_gets_others() -> None:
    caller = Caller(key_id="k", team="acme", models=frozenset({"flux-schnell", "flux-dev"}))
    assert parse(caller).constraints.models == frozenset({"flux-schnell", "flux-dev"})
    assert parse(caller, model="flux-dev").constraints.models == frozenset({"flux-dev"})
    assert parse(caller, intent="standard").constraints.models == frozenset({"flux-dev"})
    with pytest.raises(Forbidden, match=r"may only use: flux-dev, flux-schnell"):
        parse(caller, model="flux-1.1-pro")
    with pytest.raises(Forbidden, match="none of these is of tier export"):
        parse(caller, intent="export")


def test_headers_of_the_same_name_win_over_the_body() -> None:
    fields: dict[str, object] = {"prompt": "a", "seed": 1, "steps": 9, "max_cost": 5, "guidance": 1}
    headers = {
        b"x-pixelgate-seed": b"7",
        b"x-pixelgate-num-inference-steps": b"4",
        b"x-pixelgate-guidance": b"3.5",
        b"x-pixelgate-max-cost": b"0.05",
        b"x-pixelgate-providers": b'{"only": ["fal"]}',
        b"x-pixelgate-negative-prompt": "caf\xe9".encode(),
        b"x-other": b"ignored",
    }
    wish = parse_generation(with_headers(fields, headers), NAMES, CALLER)
    assert (wish.request.seed, wish.request.steps, wish.request.guidance) == (7, 4, 3.5)
    assert wish.request.negative_prompt == "caf\xe9"
    assert (wish.constraints.ceiling, wish.constraints.only) == (50_000_000, frozenset({"fal"}))


def test_every_seed_a_caller_may_send_is_one_the_request_path_keeps() -> None:
    assert MAX_SEED == SEEDS - 1


scalars = (
    st.sampled_from(
        [None, True, False, 0, 1, -1, 10**30, 0.5, 1e300, -0.0, "", " ", "auto", "1024x1024", "\0", "\u2028", "9" * 99]
    )
    | st.integers()
    | st.text("ax1:-.\N{FOX FACE}", max_size=9)
)
json_values = (
    scalars
    | st.lists(scalars, max_size=3)
    | st.dictionaries(
        st.sampled_from(["path", "scale", "only", "a", ""]), scalars | st.lists(scalars, max_size=2), max_size=3
    )
)
field_names = st.sampled_from(
    [
        "prompt",
        "model",
        "n",
        "size",
        "quality",
        "response_format",
        "output_format",
        "output_compression",
        "background",
        "style",
        "moderation",
        "stream",
        "partial_images",
        "user",
        "safety_identifier",
        "complexity",
        "seed",
        "steps",
        "guidance",
        "negative_prompt",
        "width",
        "height",
        "loras",
        "intent",
        "max_cost",
        "deadline_ms",
        "providers",
        "tags",
        "parent",
        "whatever",
    ]
)


@given(st.dictionaries(field_names, json_values, max_size=5))
def test_no_json_object_is_more_than_a_callers_error(fields: dict[str, object]) -> None:
    body = json.dumps({"prompt": "a", **fields}).encode()
    try:
        wish = parse_generation(decode_object(body), NAMES, CALLER)
    except GatewayError as error:
        said = error
    else:
        assert wish.request.prompt.strip()
        return
    assert 400 <= said.status < 500
    assert said.message


def outcome(reading: Callable[[], Wish]) -> Wish | tuple[str, str | None]:
    try:
        return reading()
    except GatewayError as error:
        return error.message, error.param


@given(st.lists(st.dictionaries(field_names, json_values, max_size=3), min_size=1, max_size=6))
def test_what_is_remembered_of_a_body_is_what_reading_it_anew_would_say(bodies: list[dict[str, object]]) -> None:
    terms = RepeatedTerms(NAMES)
    for fields in bodies * 2:
        assert outcome(lambda f=fields: terms.wish(f, CALLER)) == outcome(  # type: ignore[misc]
            lambda f=fields: parse_generation(f, NAMES, CALLER)  # type: ignore[misc]
        )


def test_terms_are_remembered_by_caller_and_type_and_without_the_prompt() -> None:
    terms = RepeatedTerms(NAMES)
    first = terms.wish({"prompt": "a secret", "n": 1}, CALLER)
    again = terms.wish({"prompt": "another", "n": 1}, CALLER)
    assert (again.request.prompt, again.constraints) == ("another", first.constraints)
    assert "secret" not in str(terms._known)
    with pytest.raises(InvalidRequest, match="'n'"):
        terms.wish({"prompt": "a", "n": True}, CALLER)
    only_dev = replace(CALLER, models=frozenset({"flux-dev"}))
    assert terms.wish({"prompt": "a", "n": 1}, only_dev).constraints.models == frozenset({"flux-dev"})
    for seed in range(KEPT + 10):
        terms.wish({"prompt": "a", "seed": seed}, CALLER)
    assert len(terms._known) <= KEPT


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_callers_error(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(decode_object(body), dict)
