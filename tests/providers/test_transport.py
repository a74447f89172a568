"""Calls go out once, breakage is told apart by what it owes, and files come from where they should."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from providers.errors import OutcomeUnknown, Unavailable
from providers.transport import (
    Answered,
    Cut,
    Forbidden,
    Http,
    Loading,
    Lost,
    NotSent,
    WireError,
    is_public,
    read,
    retry_after,
    scrub,
    unsent,
)

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
RawServe = Callable[[bytes], Awaitable[str]]


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


async def post(http: Http, url: str) -> object:
    return await http.send("POST", url, headers={}, data=b"{}")


async def test_a_refused_connection_owes_nothing(http: Http) -> None:
    with pytest.raises(NotSent) as caught:
        await post(http, "http://127.0.0.1:9/")
    assert isinstance(unsent(caught.value), Unavailable)


async def test_an_unknown_host_owes_nothing(http: Http) -> None:
    with pytest.raises(NotSent):
        await post(http, "http://no-such-host.invalid/")


async def test_hanging_up_after_the_request_leaves_the_outcome_unknown(http: Http, raw_serve: RawServe) -> None:
    with pytest.raises(Lost) as caught:
        await post(http, await raw_serve(b""))
    assert isinstance(unsent(caught.value), OutcomeUnknown)


async def test_a_body_that_breaks_off_keeps_its_status(http: Http, raw_serve: RawServe) -> None:
    with pytest.raises(Cut) as caught:
        await post(http, await raw_serve(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
    assert caught.value.status == 200


async def test_a_long_body_arrives_whole(http: Http, serve: Serve) -> None:
    async def count(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    answer = await http.send("POST", await serve(count), headers={"Content-Type": "image/png"}, data=bytes(3_000_000))
    assert answer.body == b"3000000"


async def test_a_body_that_would_not_end_is_cut(serve: Serve) -> None:
    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(2_000_000)), headers={"Content-Encoding": "gzip"})

    http = Http(limit=1_000_000)
    with pytest.raises(Cut, match="more than 1000000 bytes"):
        await post(http, await serve(bomb))
    await http.aclose()


async def test_redirects_of_calls_are_answers_not_followed(http: Http, serve: Serve) -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/"})

    answer = await http.send("POST", await serve(away), headers={"Authorization": "Key k"}, data=b"{}")
    assert answer.status == 307


async def test_an_sdk_client_reaches_only_its_sellers_hosts(http: Http, serve: Serve) -> None:
    seen: list[str] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.raw_path)
        return web.json_response({"ok": True})

    url = await serve(note)
    async with http.sdk({"queue.seller.example": f"{url}/queue"}, {"Authorization": "Key k"}) as client:
        assert (await client.post("https://queue.seller.example/a/b?x=%2F1", json={})).json() == {"ok": True}
        assert (await client.get(f"{url}/queue/own/link")).status_code == 200
        for stray in (
            "https://evil.example/",
            f"{url}/elsewhere",
            f"{url}/queue-evil/",
            "http://queue.seller.example/",
        ):
            with pytest.raises(Forbidden):
                await client.get(stray)
    assert seen == ["/queue/a/b?x=%2F1", "/queue/own/link"]


async def test_an_sdk_client_can_raise_refusals_past_the_sdk(http: Http, serve: Serve) -> None:
    async def full(_: web.Request) -> web.Response:
        return web.json_response({"detail": "full"}, status=429, headers={"Retry-After": "7"})

    url = await serve(full)
    async with http.sdk({"seller.example": url}, raise_answers=True) as client:
        with pytest.raises(Answered) as caught:
            await client.post("https://seller.example/x", json={})
    assert (caught.value.status, retry_after(caught.value.answer.headers)) == (429, 7)


async def test_a_file_comes_without_keys_and_through_redirects(http: Http, serve: Serve) -> None:
    async def files(request: web.Request) -> web.Response:
        if request.path == "/a":
            return web.Response(status=302, headers={"Location": "/b"})
        assert "Authorization" not in request.headers
        assert request.headers["User-Agent"]
        return web.Response(body=b"picture")

    url = await serve(files)
    assert await http.fetch(f"{url}/a", hosts=(url,), deadline=soon()) == b"picture"


async def test_a_file_that_goes_round_in_circles_is_given_up(http: Http, serve: Serve) -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/again"})

    url = await serve(away)
    with pytest.raises(Forbidden, match="more than 3 redirects"):
        await http.fetch(f"{url}/a", hosts=(url,), deadline=soon())


@pytest.mark.parametrize(
    "url",
    [
        "http://fal.media/x",
        "https://fal.media:8443/x",
        "https://user:pw@fal.media/x",
        "https://evilfal.media/x",
        "https://fal.media.evil.example/x",
        "https://169.254.169.254/latest",
        "file:///etc/passwd",
        "//fal.media/x",
        "http://127.0.0.1:1/x",
        "https://[::1]/x",
        "x" * 40,
        "https://[broken",
    ],
)
async def test_files_are_fetched_from_known_hosts_only(http: Http, url: str) -> None:
    with pytest.raises(Forbidden):
        await http.fetch(url, hosts=("fal.media", "http://127.0.0.1:2"), deadline=soon())


async def test_a_known_name_that_leads_inside_is_not_dialled(http: Http) -> None:
    with pytest.raises(NotSent) as caught:
        await http.fetch("https://localhost/x", hosts=("localhost",), deadline=soon(0.1))
    assert "127.0.0.1" not in str(caught.value)


async def test_a_truncated_file_is_fetched_again(http: Http, serve: Serve) -> None:
    bodies = iter([b"", b"half", b"whole"])

    async def shaky(_: web.Request) -> web.Response:
        return web.Response(body=next(bodies))

    url = await serve(shaky)
    data = await http.fetch(url, hosts=(url,), deadline=soon(), whole=lambda data: data == b"whole")
    assert data == b"whole"


async def test_a_file_that_stays_broken_is_given_up_after_four_fetches(http: Http, serve: Serve) -> None:
    asked: list[int] = []

    async def gone(_: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(status=503)

    url = await serve(gone)
    with pytest.raises(Answered):
        await http.fetch(url, hosts=(url,), deadline=soon())
    assert len(asked) == 4


async def test_reading_stops_at_once_when_asking_again_cannot_help(http: Http, serve: Serve) -> None:
    asked: list[int] = []

    async def gone(_: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(status=404)

    url = await serve(gone)
    with pytest.raises(Answered):
        await http.fetch(url, hosts=(url,), deadline=soon())
    assert len(asked) == 1


async def test_reading_stops_at_the_deadline() -> None:
    async def broken() -> None:
        raise Lost("gone")

    started = time.monotonic()
    with pytest.raises(Lost):
        await read(broken, deadline=soon(0.3))
    assert time.monotonic() - started < 0.4


async def test_reading_lets_other_errors_through() -> None:
    async def broken() -> None:
        raise KeyError("logs")

    with pytest.raises(KeyError):
        await read(broken, deadline=soon())


PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8"]
INSIDE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1"),  # noqa: S104
    *("127.1.2.3", "169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1"),
    *("192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1"),
    *("239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::10.0.0.1", "::ffff:10.0.0.1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:192.168.1.1", "64:ff9b::a00:1", "64:ff9b::808:808"),
    *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2001:10::1", "2001:20::1", "2002:a00:1::", "2002:808:808::"),
    *("fc00::1", "fd12:3456::1", "fdff::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "feff::1", "ff00::1"),
    *("ff02::1", "ff0e::1", "not an address", "", "127.1", "2130706433", "0x7f.1", "[::1]", "1.1.1.1.1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_dialled(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_inside_addresses_may_not_be_dialled(address: str) -> None:
    assert not is_public(address)


def test_this_machine_may_be_dialled_only_when_the_seller_is_on_it() -> None:
    assert is_public("127.0.0.1", loopback=True)
    assert is_public("::1", loopback=True)
    assert not is_public("10.0.0.1", loopback=True)


def test_retry_after_is_read_as_seconds_or_date_or_from_named_headers() -> None:
    assert retry_after({"retry-after": "3"}) == 3
    assert retry_after({"x-ratelimit-reset": "0.5s"}, "x-ratelimit-reset") == 0.5
    assert retry_after({"retry-after": "-4"}) == 0
    later = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=60))})
    assert later == pytest.approx(60, abs=2)
    assert retry_after({"retry-after": "whenever"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    "text",
    [
        "no such key Key 1f2e3d4c-1111-2222-3333-444455556666:abcdef0123456789",
        "Bearer abcdef0123456789xyz is not valid",
        "token r8_abcdefgh12345678 unknown",
        "the prompt a secret garden at night is odd",
        "you sent topsecretkey",
    ],
)
def test_keys_and_prompts_are_scrubbed(text: str) -> None:
    clean = scrub(text, ("a secret garden at night", "topsecretkey"))
    assert "[...]" in clean
    assert not any(word in clean for word in ("abcdef0123456789", "r8_", "garden", "topsecret", "1f2e3d4c"))


def test_plain_words_survive_scrubbing() -> None:
    assert scrub("Invalid API key provided", ("",)) == "Invalid API key provided"
    assert len(scrub("x" * 9000)) == 500


async def test_something_slow_is_made_once_and_survives_a_caller_that_leaves() -> None:
    made: list[int] = []

    def make() -> str:
        time.sleep(0.05)
        made.append(1)
        return "sdk"

    loading = Loading(make)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loading.get(), 0.001)
    assert [await loading.get(), await loading.get()] == ["sdk", "sdk"]
    assert made == [1]


def test_no_wire_error_is_one_that_an_sdk_repeats() -> None:
    import httpx  # loaded by no other test here

    assert not issubclass(WireError, (httpx.HTTPError, OSError))
