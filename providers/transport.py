"""Outbound HTTP: one session for every seller, the SDKs' hidden retries cut off, and a guard on what is fetched.

What went wrong on the wire is told apart by what it means for money:

    WireError
    |-- NotSent      nothing left this machine, so nothing was ordered
    |   `-- Forbidden    by our own rules
    |-- Lost         the connection broke after the request may have been written; nobody knows
    |-- Cut          a status came, but its body broke off or was too long
    `-- Answered     a whole answer of 400 or above (only where asked for: see `Http.sdk`)

None of them is an httpx error: fal-client 1.0.3 repeats a POST up to ten times on those.
"""

from __future__ import annotations

import asyncio
import io
import logging
import random
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, TypeVar

import aiohttp
from yarl import URL

from providers.errors import OutcomeUnknown, ProviderError, Unavailable

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

MAX_BYTES: Final = 64 * 1024 * 1024
"""Longest body we read, counted after decompression."""
CONNECT_S: Final = 5.0
"""Seconds to reach a server, TLS included: shorter than any order's timeout, so that a dead host is known as such."""
USER_AGENT: Final = "pixelgate/0.1"
"""Together's file host answers 403 to an empty one."""
ATTEMPT_HEADER: Final = "X-Pixelgate-Attempt"
"""Carries our id of an order to the seller, for whoever has to compare logs."""
_HOPS: Final = 3
_FETCHES: Final = 4
_CHUNK: Final = 256 * 1024
_AT_ONCE: Final = 1024 * 1024
"""Longest body written in one go; longer ones in pieces, so that the loop goes on meanwhile."""
_NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524})
"""Statuses after which reading again may help."""
_DENIED: Final = tuple(
    ip_network(block)
    for block in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16", "fec0::/10", "0.0.0.0/8")
)
"""Ranges that lead to private addresses or nowhere, though Python 3.11's `is_global` lets most of them pass."""
Reach = Literal["public", "loopback", "any"]
"""Where a file may be fetched from: public addresses; this machine beside them; or, for an origin that is trusted by
name, wherever that leads."""
_KEYS: Final = re.compile(
    r"(?i)\b(?:key|bearer)\s+(?=\S*\d)[\w.:~+/-]{8,}=*|\b(?:sk|r8|tgp|whsec|hf)[_-][\w-]{8,}"
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:\w{8,}"
)
"""Authorization values, keys by their sellers' prefixes, and fal's `uuid:hex`."""


class WireError(Exception):
    """Something went wrong between us and a server."""


class NotSent(WireError):
    """The request never left: no such host, no connection, no trust, or an address we do not speak to."""


class Forbidden(NotSent):
    """We do not send keys, or fetch files, there."""


class Lost(WireError):
    """The connection broke after the request may have been written."""


class Cut(WireError):
    """A status came, and then its body broke off or would not end."""

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(detail)
        self.status = status


class Answer(NamedTuple):
    """A whole HTTP answer; its body is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Answered(WireError):
    """The server said no."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer
        self.status = answer.status


class Http:
    """Every connection the sellers' adapters share. Make it inside a running loop; close it when all are closed.

    One session for calls with keys and, made on first need, others for files, which dial guarded addresses only.
    """

    def __init__(self, *, limit: int = MAX_BYTES) -> None:
        """`limit` is the longest body to read, in decompressed bytes."""
        self._limit = limit
        self._session = _session(aiohttp.TCPConnector(limit=0))
        self._files: dict[Reach, aiohttp.ClientSession] = {}

    async def send(
        self,
        method: str,
        url: str | URL,
        *,
        headers: Mapping[str, str],
        data: bytes | None = None,
        steps: aiohttp.ClientTimeout | None = None,
    ) -> Answer:
        """Ask once, follow no redirect, read the whole answer; raises `NotSent`, `Lost` or `Cut`.

        POSTs are written at most once. (aiohttp repeats idempotent methods once on a stale connection.)
        `steps` bounds single steps of the conversation (by default only connecting); the caller bounds the whole.
        """
        status = 0
        try:
            async with self._session.request(
                method,
                url,
                headers=headers,
                data=io.BytesIO(data) if data and len(data) > _AT_ONCE else data,
                allow_redirects=False,
                timeout=steps or _STEPS,
            ) as response:
                status = response.status
                return Answer(status, response.headers, await _body(response, self._limit))
        except _NEVER_SENT as error:
            raise NotSent(_reason(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            if status:
                raise Cut(f"the answer broke off ({_reason(error)})", status) from error
            raise Lost(_reason(error)) from error

    def sdk(
        self, origins: Mapping[str, str], headers: Mapping[str, str] | None = None, *, raise_answers: bool = False
    ) -> httpx.AsyncClient:
        """Make an httpx client for a seller's SDK, on our session, that speaks to `origins` only.

        `origins` maps the hosts the SDK believes in to where they really are: `{"queue.fal.run":
        "http://127.0.0.1:8000/fal/queue"}`; a host mapped to its own https address stays as it is. URLs a seller
        puts into its answers must lie under one of these, for a key must not follow them elsewhere.
        With `raise_answers` an answer of 400 or above leaves the SDK at once, as `Answered`.
        Closing the client leaves our session open.
        """
        import httpx  # comes with the SDKs, and only they need it

        return httpx.AsyncClient(
            transport=self.sdk_transport(origins, raise_answers=raise_answers),
            headers={**(headers or {}), "User-Agent": USER_AGENT},
            trust_env=False,
            timeout=None,  # noqa: S113  # the adapter bounds every order itself
        )

    def sdk_transport(self, origins: Mapping[str, str], *, raise_answers: bool = False) -> httpx.AsyncBaseTransport:
        """Make the transport of `sdk` alone, for SDKs that insist on building their httpx client themselves."""
        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs every URL, those of callbacks included
        return _wire(self, origins, raise_answers=raise_answers)

    async def fetch(
        self,
        url: str,
        *,
        hosts: Sequence[str],
        deadline: float,
        whole: Callable[[bytes], bool] | None = None,
    ) -> bytes:
        """Fetch a file a seller points to, without keys, from `hosts` only, at most four times and until `deadline`.

        `hosts` are names (https on port 443, subdomains included) or origins like "http://127.0.0.1:8000", which alone
        may be loopback. `deadline` is on the loop's clock. A body that breaks off, or that `whole` finds wanting, is
        fetched again. Raises a `WireError`, whose text never holds an address.
        """

        async def once() -> bytes:
            data = await self._fetch_once(url, lambda target: _permitted(target, hosts), self._limit)
            if whole is not None and not whole(data):
                raise Cut("the file is not whole", 200)
            return data

        return await read(once, deadline=deadline, attempts=_FETCHES)

    async def fetch_named(
        self,
        url: str,
        *,
        origins: Sequence[str],
        limit: int,
        deadline: float,
        count: Callable[[int], None] | None = None,
    ) -> bytes:
        """Fetch a file that a caller names, once and without keys: from public addresses on ports 80 and 443 only.

        `origins` ("http://images.internal:9000") alone may lie anywhere. `limit` is in decompressed bytes, `deadline`
        on the loop's clock. `count` is told of bytes before they are kept, and may refuse them by raising. Raises a
        `WireError`, whose text never holds an address, or `TimeoutError`.
        """
        async with asyncio.timeout_at(deadline):
            return await self._fetch_once(url, lambda target: _nameable(target, origins), limit, count)

    async def _fetch_once(
        self, url: str, permit: Callable[[URL], Reach], limit: int, count: Callable[[int], None] | None = None
    ) -> bytes:
        target = _url(url)
        for _ in range(_HOPS + 1):
            reach = permit(target)
            status = 0
            try:
                async with self._file_session(reach).get(
                    target, headers={"User-Agent": USER_AGENT, "Accept": "image/*"}, allow_redirects=False
                ) as response:
                    status = response.status
                    if 300 <= status < 400 and "Location" in response.headers:
                        target = target.join(_url(response.headers["Location"]))
                        continue
                    answer = Answer(status, response.headers, await _body(response, limit, count))
            except _NEVER_SENT as error:
                raise NotSent("the file's host cannot be reached") from error
            except (aiohttp.ClientError, OSError) as error:
                raise Cut("the file broke off", status) from error
            if answer.status >= 300:
                raise Answered(answer)
            return answer.body
        raise Forbidden(f"the file is behind more than {_HOPS} redirects")

    def _file_session(self, reach: Reach) -> aiohttp.ClientSession:
        if reach not in self._files:
            guard = None if reach == "any" else _guard(loopback=reach == "loopback")
            self._files[reach] = _session(aiohttp.TCPConnector(limit=0, socket_factory=guard))
        return self._files[reach]

    async def aclose(self) -> None:
        """Give back every connection."""
        for session in (self._session, *self._files.values()):
            await session.close()


_STEPS: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=_STEPS, read_bufsize=_CHUNK
    )


async def _body(response: aiohttp.ClientResponse, limit: int, count: Callable[[int], None] | None = None) -> bytes:
    """Read a body of at most `limit` decompressed bytes."""
    length = response.content_length
    if length is not None and length > limit:
        raise Cut(f"an answer of {length} bytes", response.status)
    if length is not None and "Content-Encoding" not in response.headers and count is None:
        return await response.read()
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise Cut(f"an answer of more than {limit} bytes", response.status)
        if count is not None:
            count(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


def _reason(error: BaseException) -> str:
    """Say shortly what broke, without addresses or URLs."""
    cause = error.__cause__ if isinstance(error, aiohttp.ClientConnectorError) and error.__cause__ else error
    words = getattr(cause, "strerror", None)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _wire(http: Http, origins: Mapping[str, str], *, raise_answers: bool) -> httpx.AsyncBaseTransport:
    import httpx  # as above

    class Wire(httpx.AsyncBaseTransport):
        """Carries an SDK's requests over our session, each of them once."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            times: Mapping[str, float | None] = request.extensions.get("timeout", {})
            headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
            answer = await http.send(
                request.method,
                _rewritten(URL(str(request.url), encoded=True), origins),
                headers=headers,
                data=await request.aread() or None,
                steps=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=times.get("read")),
            )
            if raise_answers and answer.status >= 400:
                raise Answered(answer)
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _SPENT]
            return httpx.Response(answer.status, headers=kept, content=answer.body, request=request)

    return Wire()


_HOP_BY_HOP: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
"""Request headers that aiohttp writes itself."""
_SPENT: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Answer headers that no longer hold for a body we have read and decompressed."""


def _rewritten(url: URL, origins: Mapping[str, str]) -> URL:
    """Where a request really goes; raises `Forbidden` for a place we were not told of."""
    base = origins.get(url.host or "")
    if base is not None and url.scheme == "https":
        return URL(base.rstrip("/") + url.raw_path_qs, encoded=True)
    for known in origins.values():
        root = URL(known)
        if url.origin() == root.origin() and url.raw_path.startswith(root.raw_path.rstrip("/") + "/"):
            return url
    raise Forbidden("a key is not sent to a host it does not belong to")


def _url(text: str) -> URL:
    try:
        return URL(text)
    except ValueError as error:
        raise Forbidden("the file's address is no URL") from error


def _permitted(url: URL, hosts: Sequence[str]) -> Reach:
    """How far a seller's file URL may lead; raises `Forbidden` when it may not be fetched at all."""
    named = _host_of(url)
    for host in hosts:
        if "://" in host:
            if url.origin() == URL(host).origin():
                return "loopback" if is_loopback(named) else "public"
        elif url.scheme == "https" and url.port == 443 and (named == host or named.endswith("." + host)):
            return "public"
    raise Forbidden("the file's host is not one this seller keeps files at")


def _nameable(url: URL, origins: Sequence[str]) -> Reach:
    """How far a caller's file URL may lead; raises `Forbidden` when it may not be fetched at all."""
    _host_of(url)
    if any(url.origin() == URL(origin).origin() for origin in origins):
        return "any"
    if (url.scheme, url.port) not in {("https", 443), ("http", 80)}:
        raise Forbidden("the file's address names a port of its own")
    return "public"


def _host_of(url: URL) -> str:
    if url.scheme not in {"http", "https"} or not url.host or url.user or url.password:
        raise Forbidden("the file's address is not one to fetch from")
    return url.host


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, spelled as a literal address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(address: str, *, loopback: bool = False) -> bool:
    """Whether an address may be dialled for a file: a public one, or (when allowed) this machine."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return loopback
    denied = any(ip.version == block.version and ip in block for block in _DENIED)
    return ip.is_global and not denied and not ip.is_multicast and not ip.is_reserved


def _guard(*, loopback: bool) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    """Make sockets for allowed addresses only; it sees the very address about to be dialled, after any resolver."""

    def make(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_public(str(address[0]), loopback=loopback):
            raise OSError("an address we do not fetch from")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)  # noqa: FBT003  # the standard library's signature
        return made

    return make


async def read(ask: Callable[[], Awaitable[T]], *, deadline: float, attempts: int = 1_000_000) -> T:
    """Ask for something that costs nothing until it answers, at most `attempts` times and until `deadline`.

    Repeats after a `WireError` that may pass (not after 4xx other than 408, 425 and 429), with growing, jittered
    pauses and never sooner than a Retry-After. `deadline` is on the loop's clock. Submissions never come here.
    """
    clock = asyncio.get_running_loop().time
    pause = 0.1
    for left in range(attempts - 1, -1, -1):
        try:
            return await ask()
        except WireError as error:
            wait = max(jittered(pause), _told_to_wait(error))
            if left == 0 or not _may_pass(error) or clock() + wait >= deadline:
                raise
        await asyncio.sleep(wait)
        pause = min(pause * 2, 5.0)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _may_pass(error: WireError) -> bool:
    return error.status in _BUSY if isinstance(error, Answered) else not isinstance(error, Forbidden)


def _told_to_wait(error: WireError) -> float:
    return retry_after(error.answer.headers) or 0.0 if isinstance(error, Answered) else 0.0


def retry_after(headers: Mapping[str, str], *names: str) -> float | None:
    """Seconds a server asks us to wait, from Retry-After (seconds or a date) or the first of `names` that holds any."""
    for name in ("retry-after", *names):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return min(max(float(text.strip().removesuffix("s")), 0.0), 3600.0)
        except ValueError:
            moment = _date(text)
            if moment is not None:
                return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), 3600.0)
    return None


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def jittered(seconds: float) -> float:
    """About `seconds`, so that many waiting together do not ask together."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311  # spreads load; guards nothing


def unsent(error: WireError) -> ProviderError:
    """Say what a failed submission means: nothing owed if it never left, unknown once it may have."""
    if isinstance(error, NotSent):
        return Unavailable(str(error))
    return OutcomeUnknown(str(error))


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Strip a seller's words of `secrets` (keys, prompts; from eight characters) and of what looks like a key."""
    for secret in secrets:
        if len(secret) >= 8:
            text = text.replace(secret, "[...]")
    return _KEYS.sub("[...]", text)[:500]


class Loading(Generic[T]):
    """Something slow to make (an SDK to import), being made in a thread from now on. Needs a running loop."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._made: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(None, make)

    async def get(self) -> T:
        """Wait for the thing; raises what making it raised. A caller that leaves does not stop it."""
        return await asyncio.shield(self._made) if not self._made.done() else self._made.result()

    async def over(self) -> None:
        """Wait until it was made or could not be; which of them, `get` says."""
        await asyncio.wait([self._made])
