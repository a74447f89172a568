from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
import uvicorn
from litestar import Litestar
from openai import AsyncOpenAI

from gateway.clock import SystemClock
from gateway.errors import NoOffer
from gateway.features.privacy import Eraser
from gateway.http import routes
from gateway.http.auth import KeyRing
from gateway.http.connections import GuardedProtocol
from gateway.http.errors import exception_handlers
from gateway.http.services import Services
from gateway.ids import new_id, sibling
from gateway.keys import make_key
from gateway.requests.call import Call, Delivered, Delivery
from gateway.requests.coalescing import Coalescing
from gateway.requests.journal import CandidateNote, DecisionNote
from gateway.requests.listeners import Listeners
from gateway.requests.orders import Salvage
from gateway.requests.quoting import QuotedOffer
from gateway.storage.database import Closing, Database, open_database
from gateway.storage.rows import AssetRow, DecisionRow, NewHold, RecipeRow
from policies.catalog import Catalog, ModelInfo
from policies.policy import Intent, Policy
from policies.tariffs import PerImage
from policies.types import Licence, Offer, Rejection, Tier
from providers.contract import Abilities
from providers.transport import NotSent

PEPPER = b"pepper for tests"
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Loads no certificates, which takes longer than a test: everything here is plain HTTP."""
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
"""Bytes that only have to travel unharmed."""


class SetClock(SystemClock):
    """The machine's clock, moved by hand where a test needs to."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def utc(self) -> datetime:
        return super().utc() + timedelta(seconds=self.ahead)


def offer(account: str, model: str, tier: Tier, price: int) -> Offer:
    return Offer(
        id=f"{account}:{model}",
        model=model,
        account=account,
        kind=account,
        endpoint=f"{account}/{model}",
        tier=tier,
        tariff=PerImage(price),
        abilities=Abilities(),
        capacities=(account,),
        typical_s=1.0,
        checked_on="2026-11-20",
    )


def catalog() -> Catalog:
    offers = [
        offer("together", "flux-schnell", Tier.PREVIEW, 2_700_000),
        offer("fal", "flux-schnell", Tier.PREVIEW, 3_000_000),
        offer("fal", "flux-dev", Tier.STANDARD, 25_000_000),
        offer("fal", "flux-1.1-pro", Tier.EXPORT, 40_000_000),
    ]
    models = dict.fromkeys(o.model for o in offers)
    by_model = {model: tuple(o for o in offers if o.model == model) for model in models}
    return Catalog(
        revision=3,
        offers={o.id: o for o in offers},
        by_model=by_model,
        models={
            model: ModelInfo(
                name=model,
                title=model.title(),
                tier=sold[0].tier,
                licence=Licence(name="Apache-2.0"),
                offers=tuple(o.id for o in sold),
            )
            for model, sold in by_model.items()
        },
        aliases={"black-forest-labs/FLUX.1-schnell": "flux-schnell"},
        capacities={},
    )


def policy() -> Policy:
    return Policy(
        name="default",
        revision=7,
        default_intent="preview",
        intents={
            "preview": Intent(name="preview", tier=Tier.PREVIEW, slo=3.0, deadline=60.0),
            "standard": Intent(name="standard", tier=Tier.STANDARD, slo=15.0, deadline=120.0),
            "export": Intent(
                name="export",
                tier=Tier.EXPORT,
                slo=60.0,
                deadline=180.0,
                promotes="preview",
                keeps=("prompt", "seed", "aspect"),
            ),
        },
        qualities={"low": "preview", "high": "export", "hd": "export", "xhigh": "export", "max": "export"},
        model_prefixes={"dall-e-": "auto", "gpt-image-": "auto", "chatgpt-image-": "auto"},
        response_formats={"gpt-image-": "b64_json", "chatgpt-image-": "b64_json"},
    )


@dataclass
class Painter:
    """Stands where the pipeline stands: remembers every call and delivers, or raises what a test put in."""

    db: Database
    clock: SetClock
    pictures: dict[str, bytes] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    salvages: list[Salvage | None] = field(default_factory=list)
    waits_for: asyncio.Event | None = None
    waits_at: Tier | None = None
    fails_later: Exception | None = None
    refuses_tier: Tier | None = None
    fails_with: Exception | None = None
    draws: bytes = PIXEL
    takes: float = 0.0
    """Seconds."""

    async def fetch(self, url: str) -> bytes:
        """Nothing lies anywhere."""
        raise NotSent(f"no {url}")

    async def read(self, path: str) -> bytes | None:
        return self.pictures.get(path)

    async def forget(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.pictures.pop(path, None)

    async def serve(self, call: Call, salvage: Salvage | None = None) -> Delivery:
        self.calls.append(call)
        self.salvages.append(salvage)
        await asyncio.sleep(self.takes)
        if self.fails_with is not None:
            raise self.fails_with
        if call.constraints.tier == self.refuses_tier:
            raise NoOffer
        if self.waits_for is not None and self.waits_at in (None, call.constraints.tier):
            await self.waits_for.wait()
        if self.fails_later is not None:
            raise self.fails_later
        made = [self._picture(call, index) for index in range(call.request.count)]
        await self._record(call, [picture.asset for picture in made])
        return Delivery(
            call_id=call.id,
            decision_id=sibling(call.id, "dec"),
            images=tuple(made),
            charge=sum(picture.asset.cost for picture in made),
            policy="default@7",
            attempts=call.request.count,
            offers=(made[0].asset.offer_id,),
        )

    async def quote(self, call: Call) -> Sequence[QuotedOffer]:
        self.calls.append(call)
        return [
            QuotedOffer(
                offer="together:flux-schnell",
                provider="together",
                model="flux-schnell",
                nano_usd=2_700_000,
                usd="0.0027",
                hold_nano_usd=2_700_000,
                expected_nano_usd=2_700_000,
                why=(),
                revision=7,
                certain=True,
                unit="1 MP",
                tariff="$0.0027 per image",
                source="",
                feasible=True,
                reason="",
            )
        ]

    def _picture(self, call: Call, index: int) -> Delivered:
        image_id = f"{sibling(call.id, 'img')}{index:x}"
        extension = {"png": "png", "jpeg": "jpg", "webp": "webp"}[call.request.format]
        path = f"{new_id('t')}/{image_id}.{extension}"
        self.pictures[path] = self.draws
        export = call.constraints.tier == Tier.EXPORT
        asset = AssetRow(
            id=image_id,
            call_id=call.id,
            attempt_id=sibling(call.id, "att"),
            team=call.caller.team,
            index=index,
            path=path,
            media_type=f"image/{call.request.format}",
            width=call.request.width,
            height=call.request.height,
            bytes=len(self.draws),
            sha256=f"{index:064x}",
            seed=call.request.seed if call.request.seed is not None else 1000 + index,
            model="flux-1.1-pro" if export else "flux-schnell",
            offer_id="fal:flux-1.1-pro" if export else "together:flux-schnell",
            tier="export" if export else "preview",
            intent=call.intent,
            cost=2_700_000,
            parent_id=call.parent,
            created=self.clock.utc(),
            expires=self.clock.utc() + timedelta(hours=1),
        )
        return Delivered(asset=asset, data=self.draws)

    async def _record(self, call: Call, assets: Sequence[AssetRow]) -> None:
        attempt, at = assets[0].attempt_id, self.clock.utc()
        charge = sum(asset.cost for asset in assets)
        hold = NewHold(
            attempt_id=attempt,
            call_id=call.id,
            part=0,
            team=call.caller.team,
            key_id=call.caller.key_id,
            account="together",
            offer_id=assets[0].offer_id,
            endpoint="x",
            cost=charge,
            charge=charge,
            width=call.request.width,
            height=call.request.height,
            count=call.request.count,
            policy="default@7",
            user=call.user,
            tags=call.tags,
        )
        recipe = RecipeRow(
            call_id=call.id,
            team=call.caller.team,
            user=call.user,
            request=msgspec.to_builtins(call.request)
            | {"model": call.model, "intent": call.intent, "tags": dict(call.tags), "compression": call.compression},
            created=at,
        )
        note = DecisionNote(
            id=sibling(call.id, "dec"),
            part=0,
            reason="new",
            move="submit",
            chosen=assets[0].offer_id,
            policy="default@7",
            prices=3,
            candidates=(CandidateNote(assets[0].offer_id, {"price": 2_700_000}, 2_700_000, "1 MP", 0.8, 1.4, 9),),
            rejections=(Rejection(offer="fal:flux-dev", code="ceiling", reason="costs $0.025, above $0.01"),),
        )
        row = DecisionRow(
            call_id=call.id, part=0, number=0, at=at, team=call.caller.team, body=msgspec.json.encode(note)
        )
        await self.db.hold("own_test", [hold], [row], at)
        await self.db.close(
            Closing(
                attempt_id=attempt,
                state="settled",
                at=at,
                cost=charge,
                charge=charge,
                assets=tuple(assets),
                recipe=recipe,
            )
        )


@dataclass
class Door:
    """A gateway's door on a real port, with the painter behind it."""

    base: str
    port: int
    key: str
    services: Services
    server: uvicorn.Server
    painter: Painter
    http: httpx.AsyncClient
    add_key: Callable[..., Awaitable[str]]

    @property
    def openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.base}/v1", api_key=self.key, max_retries=0)

    async def post(
        self, path: str, body: Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return await self.http.post(path, json=dict(body), headers=dict(headers or {}))

    async def generate(self, headers: Mapping[str, str] | None = None, **body: object) -> httpx.Response:
        return await self.post("/v1/images/generations", {"prompt": "a red lighthouse", **body}, headers)

    async def raw(self, request: bytes) -> bytes:
        """Everything the server answers to these very bytes, until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):  # refused before it was all sent; the answer is there still
                    writer.write(request)
                    await writer.drain()
                return await reader.read()
        finally:
            writer.close()

    async def conversation(self, *requests: bytes) -> list[bytes]:
        """The answers to these very bytes, each sent once the answer before it was there; all on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        heard = []
        try:
            async with asyncio.timeout(20):
                for request in requests:
                    writer.write(request)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: (\d+)", head.lower())
                    assert length is not None, head
                    heard.append(head + await reader.readexactly(0 if request[:4] == b"HEAD" else int(length[1])))
        finally:
            writer.close()
        return heard

    async def raw_post(self, body: bytes, content_type: str = "application/json") -> httpx.Response:
        return await self.http.post("/v1/images/generations", content=body, headers={"content-type": content_type})


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    clock = SetClock()
    db = open_database(f"sqlite:///{tmp_path}/gateway.db", "process")
    painter = Painter(db, clock)
    keys = KeyRing(db, PEPPER, clock)

    async def add_key(**terms: object) -> str:
        given = {"team": "acme", "name": "test", "created": datetime.now(UTC), **terms}
        row, shown = make_key(PEPPER, **given)  # type: ignore[arg-type]  # each test names its own terms
        await db.add_key(row)
        await keys.refresh()
        return shown

    services = Services(
        serve=painter.serve,
        coalescing=Coalescing(
            painter.serve,
            db=db,
            read=painter.read,
            clock=clock,
            listeners=Listeners(),
            regain=10.0,
            keep=3600.0,
        ),
        quote=painter.quote,
        db=db,
        catalog=catalog(),
        policy=policy(),
        keys=keys,
        clock=clock,
        public_base="http://pictures.test",
        blobs=painter,
        fetch=painter.fetch,
        eraser=Eraser(db=db, assets=painter, providers={}, clock=clock),
        providers={},
        ready=lambda: {"database": "ok"},
    )
    app = Litestar(routes(services), exception_handlers=exception_handlers(), openapi_config=None, logging_config=None)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=GuardedProtocol,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    # Not `serve`: that takes over the process's signals, and ends only at the next tenth of a second.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    key = await add_key()
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(
        base_url=base, headers={"authorization": f"Bearer {key}"}, timeout=10, verify=PLAIN
    ) as http:
        yield Door(base, port, key, services, server, painter, http, add_key)
    await server.shutdown()
    await db.aclose()
