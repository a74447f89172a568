"""What two well-known applications send, sent as they send it, and read as they read it.

Open WebUI uses no SDK: it asks for `b64_json` unless the model's name begins with `gpt-image`, takes a URL before
base64, and fetches it with the API key. LibreChat's DALL-E tool reads a URL that must hold `NAME.png`; its gpt-image
tool sends every option and reads base64. To edit, Open WebUI sends one picture as `image` and a list as `image[]`,
LibreChat even one as `image[]`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import httpx
import pytest

from providers.picture import complete, probe
from tests.clients.cast import HOUSE, LAKE

OPEN_WEBUI = [
    {"model": "dall-e-3", "prompt": "a kite", "n": 1, "size": "1024x1024", "response_format": "b64_json"},
    {"model": "gpt-image-1", "prompt": "a kite", "n": 1, "size": "1536x1024"},
    {"model": "flux-schnell", "prompt": "a kite", "n": 2, "size": "512x512", "response_format": "b64_json", "steps": 4},
]
LIBRECHAT_DALLE = {
    "model": "dall-e-3",
    "quality": "standard",
    "style": "vivid",
    "size": "1792x1024",
    "prompt": "a kite",
    "n": 1,
}
LIBRECHAT_GPT_IMAGE = {
    "model": "gpt-image-1",
    "prompt": "a kite",
    "n": 1,
    "background": "auto",
    "output_format": "webp",
    "output_compression": 100,
    "quality": "auto",
    "size": "1024x1536",
}


OPEN_WEBUI_EDITS = [
    ({"model": "gpt-image-1", "prompt": "in snow", "n": "1", "size": "1024x1024"}, ["image"]),
    ({"model": "gpt-image-1", "prompt": "in snow", "size": "1024x1024"}, ["image[]"]),
    (
        {"model": "flux-2-pro", "prompt": "both", "size": "1024x1024", "response_format": "b64_json"},
        ["image[]", "image[]"],
    ),
]
LIBRECHAT_EDIT = {"model": "gpt-image-1", "prompt": "in snow", "quality": "auto", "size": "1536x1024"}
FILES = [base64.b64decode(HOUSE), base64.b64decode(LAKE)]


def bearer(fixtures: Mapping[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {fixtures['key']}"}


def assert_picture(data: bytes, size: object, fmt: str = "png") -> None:
    found = probe(data)
    assert (f"{found.width}x{found.height}", found.format) == (size, fmt)
    assert complete(data)


@pytest.mark.parametrize("body", OPEN_WEBUI, ids=lambda body: str(body["model"]))
def test_open_webui_gets_its_pictures(body: dict[str, object], http: httpx.Client, fixtures: Mapping[str, str]) -> None:
    answer = http.post("/images/generations", json=body, headers=bearer(fixtures)).raise_for_status().json()
    assert len(answer["data"]) == body["n"]
    for image in answer["data"]:
        if url := image.get("url"):
            fetched = http.get(url, headers=bearer(fixtures)).raise_for_status()
            assert fetched.headers["content-type"].startswith("image/")
            data = fetched.content
        else:
            data = base64.b64decode(image["b64_json"], validate=True)
        assert_picture(data, body["size"])


def test_open_webui_in_azures_manner_gets_its_picture(http: httpx.Client, fixtures: Mapping[str, str]) -> None:
    answer = http.post(
        "/images/generations",
        params={"api-version": "2025-04-01-preview"},
        json=OPEN_WEBUI[1],
        headers={"api-key": fixtures["key"]},
    )
    image = answer.raise_for_status().json()["data"][0]
    assert_picture(base64.b64decode(image["b64_json"], validate=True), OPEN_WEBUI[1]["size"])


def test_open_webui_fills_its_menu_from_the_models(http: httpx.Client, fixtures: Mapping[str, str]) -> None:
    answer = http.get("/models", headers=bearer(fixtures)).raise_for_status().json()
    assert answer["object"] == "list"
    assert {"flux-schnell", "dall-e-3", "gpt-image-1"} <= {model["id"] for model in answer["data"]}
    assert all({"id", "object", "created", "owned_by"} <= model.keys() for model in answer["data"])


def test_librechats_dalle_tool_finds_the_pictures_name_in_its_url(
    http: httpx.Client, fixtures: Mapping[str, str]
) -> None:
    answer = http.post("/images/generations", json=LIBRECHAT_DALLE, headers=bearer(fixtures)).raise_for_status()
    url = answer.json()["data"][0]["url"]
    name = re.search(r"[\w\d]+\.png", url)
    assert name is not None
    assert name[0] == url.rpartition("/")[2]
    assert http.head(url).raise_for_status().headers["content-type"] == "image/png"
    assert_picture(http.get(url).raise_for_status().content, LIBRECHAT_DALLE["size"])


def test_librechats_gpt_image_tool_gets_its_picture(http: httpx.Client, fixtures: Mapping[str, str]) -> None:
    answer = http.post("/images/generations", json=LIBRECHAT_GPT_IMAGE, headers=bearer(fixtures)).raise_for_status()
    data = base64.b64decode(answer.json()["data"][0]["b64_json"], validate=True)
    assert_picture(data, LIBRECHAT_GPT_IMAGE["size"], "webp")


@pytest.mark.parametrize(("form", "names"), OPEN_WEBUI_EDITS)
def test_open_webui_edits_its_pictures(
    form: dict[str, str], names: list[str], http: httpx.Client, fixtures: Mapping[str, str]
) -> None:
    files = [
        (name, (f"{at}.png", data, "image/png")) for at, (name, data) in enumerate(zip(names, FILES, strict=False))
    ]
    answer = http.post("/images/edits", data=form, files=files, headers=bearer(fixtures)).raise_for_status()
    (image,) = answer.json()["data"]
    assert_picture(base64.b64decode(image["b64_json"], validate=True), form["size"])


@pytest.mark.parametrize("azure", [False, True])
def test_librechats_gpt_image_tool_edits_its_picture(
    *, azure: bool, http: httpx.Client, fixtures: Mapping[str, str]
) -> None:
    files = [("image[]", ("blob", FILES[0], "application/octet-stream"))]
    headers = {"api-key": fixtures["key"]} if azure else bearer(fixtures)
    params = {"api-version": "2025-04-01-preview"} if azure else {}
    answer = http.post("/images/edits", data=LIBRECHAT_EDIT, files=files, headers=headers, params=params)
    (image,) = answer.raise_for_status().json()["data"]
    assert_picture(base64.b64decode(image["b64_json"], validate=True), LIBRECHAT_EDIT["size"])


def test_the_fixtures_of_the_demo_are_complete_and_lead_somewhere(
    http: httpx.Client, fixtures: Mapping[str, str]
) -> None:
    assert fixtures.keys() == {
        "base_url", "key", "admin_key", "key_limited", "key_broke", "model_fail", "model_slow", "unsafe_prompt",
        "sandbox_url", "pid",
    }  # fmt: skip
    answer = http.get("/models", headers={"Authorization": f"Bearer {fixtures['admin_key']}"}).raise_for_status()
    assert {fixtures["model_fail"], fixtures["model_slow"]} <= {model["id"] for model in answer.json()["data"]}
    assert "lines" in http.get(f"{fixtures['sandbox_url']}/_sandbox/invoice").raise_for_status().json()
