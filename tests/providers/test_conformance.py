"""Every adapter keeps every promise, against the sandbox; and the kit notices when one does not."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from fractions import Fraction
from typing import Any, cast

import pytest
from msgspec import Struct
from msgspec.structs import replace
from PIL import Image as Pillow

from providers import registry
from providers.conformance import PROMISES, Case, Fault, Promise, check
from providers.contract import (
    Abilities,
    Generation,
    Image,
    ImageRequest,
    Input,
    OnAccepted,
    Order,
    Provider,
    SizeRule,
    Tokens,
    Usage,
)
from providers.errors import Overloaded
from providers.picture import probe, requested
from providers.sandbox import Sandbox, start
from providers.sandbox.invoice import PriceList, Work, charge, machine_hour
from providers.sandbox.replicate_endpoints import REPLICATE_FLUX_SIZES
from providers.transport import Http


class Seller(Struct, frozen=True):
    kind: str
    endpoint: str
    abilities: Abilities
    settings: Mapping[str, object]
    keyed: bool = True
    machine: str = ""
    """Which machine of ours, in a pool of one."""

    @property
    def silent(self) -> bool:
        return self.machine.rpartition("-")[0] in SILENT

    size: tuple[int, int] = (512, 512)


SELLERS = {
    "fal": Seller(
        "fal",
        "fal-ai/flux/schnell",
        Abilities(
            sizes=SizeRule(min_side=256, multiple=16),
            max_count=4,
            steps=(1, 12),
            default_steps=4,
            safety_dialect="checker",
        ),
        {"poll_first": 0.01, "poll_max": 0.05},
    ),
    "fal-pro": Seller(
        "fal",
        "fal-ai/flux-pro/v1.1",
        Abilities(sizes=SizeRule(min_side=256, max_side=1440, multiple=32), max_count=4, safety_dialect="tolerance"),
        {"poll_first": 0.01, "poll_max": 0.05, "sync_mode": True},
    ),
    "together": Seller(
        "together",
        "black-forest-labs/FLUX.1-schnell",
        Abilities(
            sizes=SizeRule(min_side=256, max_side=1440, multiple=16),
            max_count=4,
            steps=(1, 12),
            default_steps=4,
            size_dialect="width_height",
            safety_dialect="disable_checker",
        ),
        {},
    ),
    "fal-edit": Seller(
        "fal",
        "fal-ai/flux-pro/kontext",
        Abilities(
            operations=("edit",),
            sizes=SizeRule(named={"1:1": (1024, 1024), "4:3": (1184, 880)}),
            max_count=4,
            references=(1, 1),
            input_dialect="image_url",
            size_dialect="aspect_ratio",
            safety_dialect="tolerance",
        ),
        {"poll_first": 0.01, "poll_max": 0.05, "inline_inputs": 0},
        size=(1184, 880),
    ),
    "together-edit": Seller(
        "together",
        "black-forest-labs/FLUX.1-kontext-pro",
        Abilities(
            operations=("edit",),
            sizes=SizeRule(named={"1:1": (1024, 1024), "4:3": (1184, 880)}),
            max_count=4,
            references=(1, 1),
            input_dialect="image_url",
            size_dialect="aspect_ratio",
        ),
        {},
        size=(1184, 880),
    ),
    "openai": Seller(
        "openai",
        "gpt-image-2",
        Abilities(
            sizes=SizeRule(named={"1024x1024": (1024, 1024)}),
            max_count=10,
            formats=("png", "jpeg", "webp"),
            seed=False,
            size_dialect="size",
            fixed={"quality": "low"},
        ),
        {},
        size=(1024, 1024),
    ),
    "openai-edit": Seller(
        "openai",
        "gpt-image-2",
        Abilities(
            operations=("edit",),
            sizes=SizeRule(named={"1536x1024": (1536, 1024)}),
            max_count=10,
            seed=False,
            references=(1, 16),
            input_dialect="images",
            mask=True,
            size_dialect="size",
            fixed={"quality": "low"},
        ),
        {},
        size=(1536, 1024),
    ),
    "replicate": Seller(
        "replicate",
        "black-forest-labs/flux-schnell",
        Abilities(
            sizes=SizeRule(named=REPLICATE_FLUX_SIZES),
            max_count=4,
            formats=("jpeg", "png", "webp"),
            steps=(1, 4),
            default_steps=4,
            size_dialect="aspect_ratio_megapixels",
            safety_dialect="disable_checker",
            fixed={"go_fast": False},
        ),
        {"poll_first": 0.01, "poll_max": 0.05},
    ),
    "selfhosted": Seller(
        "selfhosted",
        "flux-schnell",
        Abilities(
            sizes=SizeRule(min_side=256, multiple=16), max_count=4, steps=(1, 12), default_steps=4, size_dialect="size"
        ),
        {},
        keyed=False,
    ),
}
DIALECTS = ("openai", "sglang", "vllm-omni", "sd-server", "aquiles-image")
SILENT = frozenset({"sd-server", "aquiles-image"})
"""They tell no seconds, so only our own books know what an order cost."""
OURS = Abilities(
    sizes=SizeRule(min_side=256, multiple=16),
    max_count=4,
    steps=(1, 12),
    default_steps=4,
    guidance=(1, 20),
    formats=("png", "jpeg"),
    fixed={"guidance_scale": 3.5},
    size_dialect="size",
)
SELLERS |= {
    f"pool-{dialect}": Seller(
        "selfhosted",
        "flux-schnell",
        replace(OURS, seed=False, steps=None, guidance=None, fixed={}) if dialect == "aquiles-image" else OURS,
        # One order after another goes wrong here, and each must find the node as fit as the first.
        {"quarantine": 0, "linger": 0, "failures": 99},
        keyed=False,
        machine=f"{dialect}-1",
    )
    for dialect in DIALECTS
}


class SandboxTwin:
    """One account of the sandbox, as the kit sees it."""

    def __init__(self, sandbox: Sandbox, seller: Seller, http: Http) -> None:
        self.key = "sandbox-conformance"
        self._sandbox = sandbox
        self._seller = seller
        self._http = http
        self._prices = PriceList()
        self._prices.change("selfhosted", "*", "0.001")

    def connect(self, key: str) -> Provider:
        base_url = f"{self._sandbox.url}/{self._seller.kind}"
        settings: dict[str, object] = {"key": key, "base_url": base_url, **self._seller.settings}
        if name := self._seller.machine:
            del settings["base_url"]
            dialect = name.rpartition("-")[0]
            settings["nodes"] = [{"name": name, "base_url": f"{base_url}/machines/{name}", "dialect": dialect}]
        return registry.connect(self._seller.kind, "conformance", settings, self._http)

    def stranger(self) -> Provider | None:
        return self.connect("unknown-key-0000") if self._seller.keyed else None

    async def script(self, fault: Fault | None) -> None:
        self._sandbox.script([{"provider": self._seller.kind, "do": fault}] if fault else [])

    async def submissions(self) -> int:
        accounts = cast("dict[str, Any]", self._sandbox.stats()).get(self._seller.kind, {})
        return sum(account["submissions"] for account in accounts.values())

    async def billed(self) -> int:
        if self._seller.silent:
            return 0
        totals = cast("dict[str, int]", self._sandbox.invoice()["total_nano_usd"])
        return totals.get(self._seller.kind, 0)

    def price(self, endpoint: str, usage: Usage) -> int:
        if self._seller.silent:
            return 0
        kind = cast("Any", self._seller.kind)
        tokens = usage.tokens or Tokens()
        work = Work(
            pictures=usage.images,
            steps=usage.steps,
            inputs=usage.references,
            text_tokens=tokens.text_in,
            input_tokens=tokens.image_in,
            output_tokens=tokens.image_out,
            machine_ns=usage.machine_ns,
        )
        if self._seller.machine:
            return charge(machine_hour(Fraction("0.34")), work).nano_usd
        return charge(self._prices.of(kind, endpoint), work).nano_usd


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=0.01, pictures="plain") as made:
        made.script(
            {
                "prices": {"selfhosted": {"*": "0.001"}},
                "limits": {seller: {"rate": 1000, "burst": 1000} for seller in ("together", "replicate")},
            }
        )
        yield made


def order(seller: Seller) -> Order:
    inputs = (INPUT,) * seller.abilities.references[0]
    request = ImageRequest(
        operation=seller.abilities.operations[0],
        prompt="a quiet harbour at dawn",
        width=seller.size[0],
        height=seller.size[1],
        count=2,
        seed=100,
        references=tuple((given.head.width, given.head.height) for given in inputs),
    )
    return Order(
        attempt_id="a",
        endpoint=seller.endpoint,
        abilities=seller.abilities,
        request=request,
        timeout=10,
        inputs=inputs,
    )


def photograph(width: int, height: int) -> Input:
    out = io.BytesIO()
    Pillow.effect_noise((width, height), 60).save(out, "JPEG")
    return Input(out.getvalue(), probe(out.getvalue()))


INPUT = photograph(320, 240)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", SELLERS)
async def test_keeps_its_promise(sandbox: Sandbox, http: Http, name: str, promise: Promise) -> None:
    twin = SandboxTwin(sandbox, SELLERS[name], http)
    provider = twin.connect(twin.key)
    broken = await promise(Case(provider, twin, order(SELLERS[name])))
    await provider.aclose()
    assert broken == []


class Careless:
    """An adapter that submits twice, forgets its order's size, logs nothing but tells everything."""

    name = "careless"

    def __init__(self, good: Provider, key: str) -> None:
        self._good = good
        self._key = key

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        try:
            first = await self._good.generate(order, on_accepted)
            await self._good.generate(order, on_accepted)
        except Exception as error:
            raise Overloaded(f"{self._key} asked for {order.request.prompt}") from error
        picture = Image(data=first.images[0].data[:-40])
        return Generation(images=(picture,), usage=requested(order, 1))

    async def aclose(self) -> None:
        await self._good.aclose()


async def test_the_kit_notices_a_careless_adapter(sandbox: Sandbox, http: Http) -> None:
    seller = SELLERS["together"]
    twin = SandboxTwin(sandbox, seller, http)
    broken = await check(Case(Careless(twin.connect(twin.key), twin.key), twin, order(seller)))
    found = {sentence.partition(":")[0] for sentence in broken}
    assert found >= {
        "delivers_what_was_ordered",
        "usage_is_what_the_seller_bills",
        "errors_mean_what_they_say",
        "submits_once",
        "gives_up_in_time",
        "keeps_secrets",
    }
