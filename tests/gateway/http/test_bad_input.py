from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateway.http.conftest import Door

P: dict[str, object] = {"prompt": "a red lighthouse"}

BAD_FIELDS: list[tuple[dict[str, object], str | None, str]] = [
    ({}, "prompt", "missing_required_parameter"),
    ({"prompt": None}, "prompt", "missing_required_parameter"),
    ({"prompt": "  \n "}, "prompt", "invalid_value"),
    ({"prompt": ""}, "prompt", "invalid_value"),
    ({"prompt": 7}, "prompt", "invalid_type"),
    ({"prompt": ["a"]}, "prompt", "invalid_type"),
    ({"prompt": "a" * 32_001}, "prompt", "string_above_max_length"),
    ({"prompt": "a\0b"}, "prompt", "invalid_value"),
    (P | {"qualitty": "high"}, "qualitty", "unknown_parameter"),
    (P | {"n": 0}, "n", "integer_below_min_value"),
    (P | {"n": 11}, "n", "integer_above_max_value"),
    (P | {"n": -1}, "n", "integer_below_min_value"),
    (P | {"n": "1"}, "n", "invalid_type"),
    (P | {"n": True}, "n", "invalid_type"),
    (P | {"n": 1.0}, "n", "invalid_type"),
    (P | {"n": 10**400}, "n", "integer_above_max_value"),
    (P | {"size": "1024"}, "size", "invalid_value"),
    (P | {"size": "1024X1024"}, "size", "invalid_value"),
    (P | {"size": "1024x1024 "}, "size", "invalid_value"),
    (P | {"size": "+1024x1024"}, "size", "invalid_value"),
    (P | {"size": "1_024x1024"}, "size", "invalid_value"),
    (P | {"size": "\uff11\uff10\uff12\uff14x1024"}, "size", "invalid_value"),
    (P | {"size": "0x1024"}, "size", "invalid_value"),
    (P | {"size": "8x8"}, "size", "invalid_value"),
    (P | {"size": "99999x99999"}, "size", "invalid_value"),
    (P | {"size": 1024}, "size", "invalid_type"),
    (P | {"size": "512x512", "width": 1024, "height": 1024}, "size", "invalid_value"),
    (P | {"width": 1024}, "height", "invalid_value"),
    (P | {"quality": "ultra"}, "quality", "invalid_value"),
    (P | {"quality": 1}, "quality", "invalid_type"),
    (P | {"response_format": "png"}, "response_format", "invalid_value"),
    (P | {"output_format": "bmp"}, "output_format", "invalid_value"),
    (P | {"output_format": "gif"}, "output_format", "unsupported_value"),
    (P | {"output_format": "svg"}, "output_format", "unsupported_value"),
    (P | {"output_compression": 101, "output_format": "jpeg"}, "output_compression", "integer_above_max_value"),
    (P | {"output_compression": 50}, "output_compression", "invalid_value"),
    (P | {"background": "transparent"}, "background", "unsupported_value"),
    (P | {"background": "red"}, "background", "invalid_value"),
    (P | {"style": "loud"}, "style", "invalid_value"),
    (P | {"complexity": "huge"}, "complexity", "invalid_value"),
    (P | {"moderation": "off"}, "moderation", "invalid_value"),
    (P | {"stream": "no"}, "stream", "invalid_type"),
    (P | {"partial_images": 2}, "partial_images", "invalid_value"),
    (P | {"partial_images": 4}, "partial_images", "integer_above_max_value"),
    (P | {"frame_count": 9}, "frame_count", "unsupported_parameter"),
    (P | {"svg": {"model": "x"}}, "svg", "unsupported_parameter"),
    (P | {"image_url": "https://example.com/a.png"}, "image_url", "unsupported_parameter"),
    (P | {"user": 5}, "user", "invalid_type"),
    (P | {"seed": -1}, "seed", "integer_below_min_value"),
    (P | {"seed": 2**31}, "seed", "integer_above_max_value"),
    (P | {"seed": 1.5}, "seed", "invalid_type"),
    (P | {"steps": 4, "num_inference_steps": 5}, "steps", "invalid_value"),
    (P | {"guidance_scale": "3"}, "guidance_scale", "invalid_type"),
    (P | {"guidance": -1}, "guidance_scale", "invalid_value"),
    (P | {"loras": {"path": "a"}}, "loras", "invalid_type"),
    (P | {"loras": [{"scale": 1}]}, "loras[0].path", "missing_required_parameter"),
    (P | {"loras": [{"path": "a", "weight": 1}]}, "loras[0].weight", "unknown_parameter"),
    (P | {"loras": [{"path": "/etc/passwd"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "../weights"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "file:///weights"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "http://example.com/a.safetensors"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "https://127.0.0.1/a.safetensors"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "https://[::1]/a.safetensors"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "https://2130706433/a.safetensors"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "https://metadata/a.safetensors"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "https://metadata.google.Internal/token"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "https://user@example.com/a.safetensors"}]}, "loras[0].path", "invalid_value"),
    (P | {"loras": [{"path": "a", "scale": 9}]}, "loras[0].scale", "invalid_value"),
    (P | {"intent": "draft"}, "intent", "invalid_value"),
    (P | {"max_cost": -1}, "max_cost", "invalid_value"),
    (P | {"max_cost": "cheap"}, "max_cost", "invalid_value"),
    (P | {"max_cost": True}, "max_cost", "invalid_type"),
    (P | {"max_cost": "Infinity"}, "max_cost", "invalid_value"),
    (P | {"deadline_ms": 0}, "deadline_ms", "integer_below_min_value"),
    (P | {"providers": ["fal"]}, "providers", "invalid_type"),
    (P | {"providers": {"onyl": ["fal"]}}, "providers.onyl", "unknown_parameter"),
    (P | {"providers": {"only": "fal"}}, "providers.only", "invalid_type"),
    (P | {"providers": {"only": ["fall"]}}, "providers", "invalid_value"),
    (P | {"model": "flux-schnell:fal", "providers": {"only": ["together"]}}, "providers", "invalid_value"),
    (P | {"tags": {"campaign": 7}}, "tags.campaign", "invalid_type"),
    (P | {"tags": {str(i): "x" for i in range(17)}}, "tags", "invalid_value"),
    (P | {"model": 5}, "model", "invalid_type"),
]


async def test_a_bad_field_is_refused_by_name_and_nothing_is_ordered(door: Door) -> None:
    for body, param, code in BAD_FIELDS:
        answer = await door.post("/v1/images/generations", body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error["message"]
        assert error["type"] == "invalid_request_error"
        assert len(error["message"]) < 500
        assert answer.headers["x-request-id"].startswith("req_")
    assert door.painter.calls == []


async def test_every_message_about_a_value_shows_it_and_what_may_be_sent(door: Door) -> None:
    error = (await door.generate(qualitty="high")).json()["error"]
    assert error["message"] == "Unknown parameter: 'qualitty'. Did you mean 'quality'?"
    error = (await door.generate(n=11)).json()["error"]
    assert error["message"] == ("Invalid 'n': integer above maximum value. Expected a value <= 10, but got 11 instead.")
    error = (await door.generate(quality="hihg")).json()["error"]
    assert "'hihg'" in error["message"]
    assert "Did you mean 'high'?" in error["message"]


BAD_BODIES = {
    "empty": b"",
    "cut off": b'{"prompt": "a',
    "not an object": b'["prompt"]',
    "a bare string": b'"prompt"',
    "brackets": b"[" * 100_000,
    "closed brackets": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "braces": b'{"a":' * 100_000,
    "invalid utf-8": b'{"prompt": "caf\xe9"}',
    "overlong utf-8": b'{"prompt": "\xc0\xaf"}',
    "a lone surrogate": b'{"prompt": "a \\ud800 b"}',
    "a lone surrogate, upper case": b'{"prompt": "a \\uDFFF b"}',
    "a surrogate in a key": b'{"prompt": "a", "\\udc00": 1}',
    "NaN": b'{"prompt": "a", "guidance_scale": NaN}',
    "infinity": b'{"prompt": "a", "guidance_scale": -Infinity}',
    "an overflowing number": b'{"prompt": "a", "guidance_scale": 1e999}',
    "a number of 5,000 digits": b'{"prompt": "a", "n": ' + b"1" * 5_000 + b"}",
    "a key twice": b'{"prompt": "a", "n": 1, "n": 10}',
    "a byte order mark": b'\xef\xbb\xbf{"prompt": "a"}',
    "single quotes": b"{'prompt': 'a'}",
    "utf-16": '{"prompt": "a"}'.encode("utf-16"),
    "a form": b"prompt=a",
    "null bytes": bytes(100),
}


async def test_a_malformed_body_is_the_callers_error(door: Door) -> None:
    for name, body in BAD_BODIES.items():
        answer = await door.raw_post(body)
        assert answer.status_code == 400, name
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert door.painter.calls == []


def long_objects() -> dict[str, bytes]:
    """Bodies that a decoder must not think about for long."""
    names = ",".join(f'"a{number}":1' for number in range(90_000))
    return {
        "a key twice, at the end of many": f'{{{names},"z":1,"z":1}}'.encode(),
        "two million objects": b'{"prompt": [' + b"{}," * 2_000_000 + b"{}]}",
        "four million numbers": b'{"prompt": [' + b"1," * 4_000_000 + b"1]}",
    }


@pytest.mark.timeout(20)  # the first took an hour, while which nobody else was answered
async def test_a_body_that_is_long_to_decode_is_refused_at_once(door: Door) -> None:
    for name, body in long_objects().items():
        answer = await door.raw_post(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json"), name


async def test_a_pair_of_surrogates_is_a_character(door: Door) -> None:
    answer = await door.raw_post(b'{"prompt": "a fox \\ud83e\\udd8a"}')
    assert answer.status_code == 200
    assert door.painter.calls[0].request.prompt == "a fox \N{FOX FACE}"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/json; charset=latin-1",
    ],
)
async def test_anything_but_json_is_refused(door: Door, content_type: str) -> None:
    answer = await door.raw_post(json.dumps(P).encode(), content_type)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"


async def test_a_compressed_body_is_refused(door: Door) -> None:
    answer = await door.generate({"content-encoding": "gzip"})
    assert answer.status_code == 415


async def test_a_body_of_50_mb_is_read_away_and_answered(door: Door) -> None:
    body = b'{"prompt": "' + b"a" * 50_000_000 + b'"}'
    answer = await door.raw_post(body)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


async def test_a_chunked_body_of_20_mb_is_read_away_and_answered(door: Door) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"a" * 1_000_000

    answer = await door.http.post(
        "/v1/images/generations",
        content=pieces(),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413


async def test_a_client_that_asks_first_is_told_before_it_sends(door: Door) -> None:
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n\r\n"
    )
    answer = await door.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


async def test_a_client_that_leaves_in_the_middle_of_its_body_orders_nothing(door: Door) -> None:
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n"
        'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"prompt": "a"}'
    )
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(head.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await door.generate()).status_code == 200
    assert len(door.painter.calls) == 1


@pytest.mark.parametrize(
    "model", ["flux-schnel", " ", "flux-schnell:", "flux-schnell:fastets", "gpt-4", "a/b/c", ":fal"]
)
async def test_an_unknown_model_is_not_found(door: Door, model: str) -> None:
    answer = await door.generate(model=model)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("x-pixelgate-sede", "5", "unknown_parameter"),
        ("x-pixelgate-seed", "five", "invalid_type"),
        ("x-pixelgate-seed", "-5", "integer_below_min_value"),
        ("x-pixelgate-providers", "fal", "invalid_value"),
        ("x-pixelgate-providers", '{"only": "fal"}', "invalid_type"),
        ("x-pixelgate-intent", "draft", "invalid_value"),
        ("x-pixelgate-max-cost", "1e9", "invalid_value"),
    ],
)
async def test_a_bad_extension_header_is_refused_like_the_field(door: Door, header: str, value: str, code: str) -> None:
    answer = await door.generate({header: value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_are_told_which_one_works(door: Door, method: str) -> None:
    answer = await door.http.request(method, "/v1/images/generations")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1/%F0%9F%A6%8A", 404),
        ("GET", "/v1/%ff", 404),
        ("POST", "/v1/models", 405),
        ("PUT", "/v1/images/img_1", 405),
        ("GET", "/v1/quotes", 405),
    ],
)
async def test_the_frameworks_own_failures_wear_the_envelope(door: Door, method: str, path: str, status: int) -> None:
    answer = await door.http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert ("allow" in answer.headers) == (status == 405)
