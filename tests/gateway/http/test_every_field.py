"""Every field of OpenAI's image API, one by one: it shows in the order or the answer, or is refused by its name.

The fields are those of the installed client's own types, so one that OpenAI adds fails here until somebody decides.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import httpx
import msgspec
import pytest
from openai.types import image_create_variation_params, image_edit_params, image_generate_params
from PIL import Image

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door

GENERATION = frozenset(get_type_hints(image_generate_params.ImageGenerateParamsStreaming))
EDIT = frozenset(get_type_hints(image_edit_params.ImageEditParamsStreaming)) - {"image", "mask"}
VARIATION = frozenset(get_type_hints(image_create_variation_params.ImageCreateVariationParams)) - {"image"}

SHOWS: Mapping[str, str] = {
    "prompt": "a heron",
    "model": "flux-dev",
    "n": "2",
    "size": "512x768",
    "quality": "high",
    "response_format": "b64_json",
    "output_format": "webp",
    "moderation": "low",
    "stream": "true",
    "user": "ada",
    "safety_identifier": "ada",
}
"""Field -> a value that is not its default, and must make a difference."""
NEEDS_ANOTHER: Mapping[str, dict[str, str]] = {
    "output_compression": {"output_compression": "50", "output_format": "webp"},
    "partial_images": {"partial_images": "2", "stream": "true"},
}
"""Fields that say something about another one, and are refused without it."""
NOT_SOLD: Mapping[str, str] = {"background": "transparent", "input_fidelity": "high"}
"""Done where an offer can, and refused where none does, as at this door."""
WITHOUT_EFFECT: Mapping[str, str] = {"style": "natural", "complexity": "high"}
"""Documented so, for old apps."""
REFUSED: Mapping[str, str] = {"svg": '{"model": "x"}', "frame_count": "8", "frame_duration_ms": "100", "markup": "x"}
NUMBERS = frozenset({"n", "output_compression", "partial_images", "frame_count", "frame_duration_ms"})
PLAIN = {"prompt": "a red lighthouse"}


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (512, 512)).save(out, "PNG")
    return out.getvalue()


def as_json(form: Mapping[str, str]) -> dict[str, object]:
    """A form's words as the values of JSON."""
    exact = {**dict.fromkeys(NUMBERS, int), "stream": bool, "svg": msgspec.json.decode}
    return {name: exact.get(name, str)(text) for name, text in form.items()}  # type: ignore[operator]  # each takes one


async def generate(door: Door, form: Mapping[str, str]) -> httpx.Response:
    return await door.post("/v1/images/generations", as_json(form))


async def edit(door: Door, form: Mapping[str, str]) -> httpx.Response:
    return await door.http.post("/v1/images/edits", data=dict(form), files={"image": ("a.png", picture())})


async def vary(door: Door, form: Mapping[str, str]) -> httpx.Response:
    return await door.http.post("/v1/images/variations", data=dict(form), files={"image": ("a.png", picture())})


def traces(door: Door, answer: httpx.Response) -> object:
    """What a field can show in: the call, the form of the answer, and what the caller is told beside it."""
    assert answer.status_code == 200, answer.text
    call = msgspec.structs.asdict(door.painter.calls[-1])
    kept = {name: value for name, value in call.items() if name not in {"id", "arrived", "fingerprint", "inputs"}}
    stream = answer.headers["content-type"].startswith("text/event-stream")
    forms = "event" if stream else sorted(answer.json()["data"][0].keys() - {"id", "seed"})
    echoed = "" if stream else answer.json().get("safety_identifier")
    return repr(kept), forms, echoed, answer.headers.get("x-pixelgate-warning")


def test_this_table_knows_every_field_there_is() -> None:
    known = SHOWS.keys() | NEEDS_ANOTHER.keys() | WITHOUT_EFFECT.keys() | REFUSED.keys() | NOT_SOLD.keys()
    assert known == GENERATION | EDIT


@pytest.mark.parametrize("name", sorted(SHOWS.keys() & GENERATION))
async def test_a_field_of_a_generation_makes_a_difference(door: Door, name: str) -> None:
    usual = traces(door, await generate(door, PLAIN))
    assert traces(door, await generate(door, {**PLAIN, name: SHOWS[name]})) != usual


@pytest.mark.parametrize("name", sorted((SHOWS.keys() & EDIT) - {"model"}))
async def test_a_field_of_an_edit_makes_a_difference(door: Door, name: str) -> None:
    usual = traces(door, await edit(door, {**PLAIN, "response_format": "url"}))
    assert traces(door, await edit(door, {**PLAIN, "response_format": "url", name: SHOWS[name]})) != usual


@pytest.mark.parametrize("ask", [generate, edit])
@pytest.mark.parametrize("name", sorted(NEEDS_ANOTHER))
async def test_a_field_about_another_counts_with_it_and_is_refused_without(door: Door, name: str, ask: object) -> None:
    assert callable(ask)
    both = NEEDS_ANOTHER[name]
    refused = await ask(door, {**PLAIN, name: both[name]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    assert (await ask(door, {**PLAIN, **both})).status_code == 200


@pytest.mark.parametrize("name", sorted(NOT_SOLD))
async def test_what_nobody_sells_is_refused_by_the_field_that_asks_for_it(door: Door, name: str) -> None:
    refused = await edit(door, {**PLAIN, name: NOT_SOLD[name]})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, name, "unsupported_value")


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_a_field_that_is_not_done_here_is_refused_by_its_name(door: Door, name: str) -> None:
    for ask, fields in ((generate, GENERATION), (edit, EDIT)):
        if name in fields:
            refused = await ask(door, {**PLAIN, name: REFUSED[name]})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, name), refused.text
    assert door.painter.calls == []


async def test_a_drawing_over_a_picture_is_refused_as_the_file_it_is(door: Door) -> None:
    files = {"image": ("a.png", picture()), "markup": ("b.png", picture())}
    refused = await door.http.post("/v1/images/edits", data=PLAIN, files=files)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "markup")
    assert refused.json()["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
async def test_what_has_no_effect_is_documented_and_checked_all_the_same(door: Door, name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "endpoints.md").read_text()
    (line,) = [line for line in page.splitlines() if f"`{name}`" in line.partition("|")[2].partition("|")[0]]
    assert "without effect" in line
    assert (await generate(door, {**PLAIN, name: WITHOUT_EFFECT[name]})).status_code == 200
    odd = await generate(door, {**PLAIN, name: "odd"})
    assert (odd.status_code, odd.json()["error"]["param"]) == (400, name)


async def test_the_word_null_in_a_form_means_the_default_but_is_a_prompt_like_any_other(door: Door) -> None:
    usual = traces(door, await edit(door, {"prompt": "null"}))
    nulls = dict.fromkeys(("n", "quality", "background", "stream", "output_compression", "input_fidelity"), "null")
    assert traces(door, await edit(door, {"prompt": "null", **nulls})) == usual
    assert door.painter.calls[-1].request.prompt == "null"


@pytest.mark.parametrize("ask", [generate, edit, vary])
async def test_a_field_nobody_knows_is_refused_by_its_name(door: Door, ask: object) -> None:
    assert callable(ask)
    refused = await ask(door, {**({} if ask is vary else PLAIN), "aspect_ratio": "1:1"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "aspect_ratio")


def test_a_variation_takes_every_field_openais_had() -> None:
    from gateway.http import edit_fields

    assert edit_fields.VARIATION.keys() == VARIATION
