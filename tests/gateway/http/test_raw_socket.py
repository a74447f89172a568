"""Bytes no client library would send: each is refused in the envelope where HTTP allows an answer, and harms nobody."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.http import bodies, connections, drawing, leaving

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door

BODY = b'{"prompt": "a red lighthouse"}'


def post(door: Door, body: bytes, *extra: bytes, close: bool = True) -> bytes:
    """A whole request, byte by byte as given."""
    lines = [
        b"POST /v1/images/generations HTTP/1.1",
        b"Host: gateway",
        b"Authorization: Bearer " + door.key.encode(),
        b"Content-Type: application/json",
        *([] if b"Transfer-Encoding: chunked" in extra else [b"Content-Length: %d" % len(body)]),
        *([b"Connection: close"] if close else []),
        *extra,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def answers(raw: bytes) -> list[tuple[int, bytes]]:
    """Status and body of every answer in what came back."""
    found, rest = [], raw
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        length = re.search(rb"content-length: (\d+)", head.lower())
        assert length is not None, head
        found.append((status, rest[: int(length[1])]))
        rest = rest[int(length[1]) :]
    return found


def only(raw: bytes) -> tuple[int, dict[str, object]]:
    """Status and error of the one answer."""
    ((status, body),) = answers(raw)
    error = json.loads(body)["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    return status, error


@asynccontextmanager
async def unharmed(door: Door) -> AsyncIterator[None]:
    """Whatever happens within, the gateway draws afterwards and has ordered nothing before."""
    yield
    assert door.painter.calls == []
    assert (await door.generate()).status_code == 200


NOT_HTTP = {
    "garbage": b"\x00\xff\x00\xff\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version of the future": b"GET /health/live HTTP/7.3\r\n\r\n",
    "a method of its own": b"BREW /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /health/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the path": b"GET /health/\x00live HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET http://gateway HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without a colon": b"GET /health/live HTTP/1.1\r\nHost x\r\n\r\n",
    "a space before the colon": b"GET /health/live HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n\r\n",
    "NUL in a header": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
    "bare line feeds": b"GET /health/live HTTP/1.1\nHost: x\n\n",
    "two lengths": b"POST /v1/quotes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"POST /v1/quotes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a length that is no number": b"POST /v1/quotes HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    "a length and chunks": (
        b"POST /v1/quotes HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "an encoding after chunked": (
        b"POST /v1/quotes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", NOT_HTTP)
async def test_what_is_not_http_is_refused_in_the_envelope(door: Door, name: str) -> None:
    async with unharmed(door):
        raw = await door.raw(NOT_HTTP[name])
        status, error = only(raw)
        assert (status, error["code"]) == (400, "invalid_http")
        assert b"\r\nconnection: close\r\n" in raw


BAD_CHUNKS = {
    "no size": b"zz\r\nabc\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nabc\r\n0\r\n\r\n",
    "more bytes than told": b"2\r\nabcdef\r\n0\r\n\r\n",
    "NUL behind the size": b"3\x00\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
async def test_chunks_that_are_none_are_refused(door: Door, name: str) -> None:
    async with unharmed(door):
        status, _ = only(await door.raw(post(door, BAD_CHUNKS[name], b"Transfer-Encoding: chunked")))
        assert status == 400


async def test_a_body_in_chunks_of_one_byte_is_a_body(door: Door) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    ((status, _),) = answers(await door.raw(post(door, chunks, b"Transfer-Encoding: chunked")))
    assert status == 200


ENDLESS = {
    "a header": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 10_000_000,
    "headers": b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"X-Many: a\r\n" * 1_000_000,
    "a path": b"GET /health/" + b"a" * 10_000_000,
    "a method": b"G" * 10_000_000,
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_head_without_end_is_cut_off(door: Door, name: str) -> None:
    async with unharmed(door):
        status, _ = only(await door.raw(ENDLESS[name]))
        assert status in (400, 431)


@pytest.mark.parametrize("endless", [b"1;" + b"a" * 5_000_000, b"0\r\nX-Trailer: " + b"a" * 5_000_000])
async def test_what_stands_between_chunks_is_cut_off(door: Door, endless: bytes) -> None:
    async with unharmed(door):
        status, error = only(await door.raw(post(door, endless, b"Transfer-Encoding: chunked")))
        assert (status, error["code"]) == (431, "head_too_large")


async def test_a_trailer_is_no_header(door: Door) -> None:
    body = b"%x\r\n%s\r\n0\r\nX-Pixelgate-Seed: 7\r\n\r\n" % (len(BODY), BODY)
    ((status, _),) = answers(await door.raw(post(door, body, b"Transfer-Encoding: chunked")))
    assert status == 200
    assert door.painter.calls[0].request.seed is None


async def test_a_packed_bomb_is_not_unpacked(door: Door) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    async with unharmed(door):
        status, error = only(await door.raw(post(door, bomb, b"Content-Encoding: gzip")))
        assert (status, error["code"]) == (415, "unsupported_media_type")


async def test_requests_in_a_row_are_answered_in_order(door: Door) -> None:
    good, bad = post(door, BODY, close=False), post(door, b"[" * 1000, close=False)
    raw = await door.raw(good + bad + good + post(door, BODY))
    assert [status for status, _ in answers(raw)] == [200, 400, 200, 200]


async def test_a_thousand_requests_at_once_on_one_connection_are_all_answered(door: Door) -> None:
    one = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    raw = await door.raw(one * 999 + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert raw.count(b"HTTP/1.1 200 ") == 1000


@pytest.mark.parametrize(
    "value", ["a\r\nx-injected: 1", "a\nx-injected: 1", "a\u2028x-injected: 1", "%0d%0ax-injected: 1", "\x1b[2J"]
)
@pytest.mark.parametrize("name", ["prompt", "model", "user", "safety_identifier", "parent", "intent"])
@pytest.mark.parametrize("close", [True, False])
async def test_nothing_a_caller_sends_becomes_a_header(door: Door, name: str, value: str, close: bool) -> None:
    body = json.dumps({"prompt": "a kite", name: value}).encode()
    head = (await door.conversation(post(door, body, close=close)))[0].partition(b"\r\n\r\n")[0]
    assert b"x-injected" not in head.lower()
    assert b"\x1b" not in head


async def test_a_header_of_ours_that_would_be_two_is_not_sent(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "images_headers", lambda *_: [(b"x-pixelgate-policy", b"a\r\nx-injected: 1")])
    assert await door.raw(post(door, BODY, close=False)) == b""  # and the connection is closed


async def test_answers_on_a_kept_connection_are_whole(door: Door) -> None:
    head = b"HEAD /v1/images/generations HTTP/1.1\r\nHost: x\r\n\r\n"
    drawn, refused, last = await door.conversation(post(door, BODY, close=False), head, post(door, BODY))
    assert refused.startswith(b"HTTP/1.1 405 ")
    assert refused.endswith(b"\r\n\r\n")
    assert b"connection: close" not in drawn.lower()
    for raw in (drawn, last):
        ((status, body),) = answers(raw)
        assert (status, len(json.loads(body)["data"])) == (200, 1)


TRAVERSALS = [
    b"/assets/../../etc/passwd",
    b"/assets/..%2f..%2fetc%2fpasswd",
    b"/assets/%2e%2e/%2e%2e/pepper",
    b"/assets/aaaaaaaaaaaaaaaaaaaa/..%2f..%2fpepper.png",
    b"/assets/aaaaaaaaaaaaaaaaaaaa/%2e%2e%2f%2e%2e%2fgateway.db.png",
    b"/assets/aaaaaaaaaaaaaaaaaaaa/a%00.png",
    b"/assets//etc/passwd.png",
    b"/assets/C:%5cwindows/win.png",
    b"/v1/images/..%2f..%2fmodels",
    b"/v1/images/%2e%2e",
    b"/v1/images/img_1%00",
    b"/v1/images/" + b"a" * 5000,
    b"/v1/decisions/dec_%2e%2e%2f",
    b"/v1/decisions/%27%20OR%201=1%20--",
    b"/v1/models/..%2f..%2f..%2fetc%2fpasswd",
    b"/v1/models/%ff%fe",
]


@pytest.mark.parametrize("path", TRAVERSALS)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_no_path_leads_out_of_the_house(door: Door, method: bytes, path: bytes) -> None:
    head = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + door.key.encode() + b"\r\n\r\n"
    raw = await door.raw(method + b" " + path + head)
    assert raw.startswith(b"HTTP/1.1 404 ")
    assert b"root:" not in raw


async def test_odd_keys_are_just_wrong(door: Door) -> None:
    odd = (b"\xff\xfe\xfd", b"pg_\xc3\xa9_x", b"pg__", b"pg_" + b"a" * 20_000, b"Bearer", b"\x80" * 64, b"pg_a_\xff")
    for key in odd:
        head = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key
        status, error = only(await door.raw(head + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert len(str(error["message"])) < 200


async def test_an_answer_that_says_the_connection_is_closed_closes_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.server.config, "timeout_keep_alive", 600)
    announced = b"Content-Length: %d" % (bodies.MAX_DRAIN + 1)
    raw = await door.raw(post(door, b"", close=False).replace(b"Content-Length: 0", announced))
    assert only(raw)[0] == 413
    assert b"\r\nconnection: close\r\n" in raw


async def test_a_body_that_does_not_come_is_not_waited_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.1)
    whole = post(door, BODY, close=False)
    async with unharmed(door):
        for sent in (whole[: -len(BODY)], whole[:-5]):
            status, error = only(await door.raw(sent))
            assert (status, error["code"]) == (408, "request_timeout")


@pytest.fixture
async def hurried(door: Door, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """The door with little patience for connections."""
    monkeypatch.setattr(connections, "SWEEP_S", 0.05)
    monkeypatch.setattr(connections, "PATIENCE_S", 0.2)
    sweeping = asyncio.create_task(connections.sweep(door.server.server_state.connections))
    yield door
    sweeping.cancel()


async def test_a_head_that_does_not_come_is_not_waited_for(hurried: Door) -> None:
    async with unharmed(hurried):
        status, error = only(await hurried.raw(b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nX-A"))
        assert (status, error["code"]) == (408, "request_timeout")


async def test_a_head_that_comes_drop_by_drop_is_not_waited_for(hurried: Door) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hurried.port)
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n")
    answer = asyncio.create_task(reader.read())
    while not answer.done():
        writer.write(b"X-A: b\r\n")
        await asyncio.sleep(0.02)
    assert answer.result().startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_connection_that_says_nothing_is_closed_without_a_word(hurried: Door) -> None:
    assert await hurried.raw(b"") == b""


async def test_an_answer_that_nobody_takes_is_thrown_away(hurried: Door) -> None:
    hurried.painter.draws = bytes(20_000_000)
    _, writer = await asyncio.open_connection("127.0.0.1", hurried.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # of every transport that reads
    writer.write(post(hurried, b'{"prompt": "a kite", "response_format": "b64_json"}'))
    for _ in range(200):
        await asyncio.sleep(0.05)
        if hurried.painter.calls and not hurried.server.server_state.connections:
            break
    assert not hurried.server.server_state.connections
    writer.close()


async def test_a_caller_who_waits_long_for_its_picture_is_not_hurried(hurried: Door) -> None:
    hurried.painter.takes = 0.6
    assert (await hurried.generate()).status_code == 200


async def test_the_server_tells_by_itself_that_a_client_hung_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "LISTEN_AFTER_S", 3600.0)  # so nobody waits for it
    door.painter.waits_for = asyncio.Event()
    begun, cancelled = asyncio.Event(), asyncio.Event()
    serve = door.services.serve

    async def watched(*call: Any) -> Any:
        begun.set()
        try:
            return await serve(*call)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(door.services, "serve", watched)
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(post(door, BODY, close=False))
    async with asyncio.timeout(20):
        await begun.wait()
        writer.close()
        await cancelled.wait()


async def test_requests_sent_before_their_turn_are_read_and_answered_in_theirs(door: Door) -> None:
    second = b'{"prompt": "a green lighthouse"}'
    raw = await door.raw(post(door, BODY, close=False) + post(door, second))
    assert [status for status, _ in answers(raw)] == [200, 200]
    assert [call.request.prompt for call in door.painter.calls] == ["a red lighthouse", "a green lighthouse"]
