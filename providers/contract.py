"""The words the gateway shares with those who sell images, and the one interface a seller implements.

This is all that `policies/` may know of the world, and all that an adapter needs to know of the gateway.

Units: pixels for sizes, seconds (`float`) for durations, nano-dollars (`int`, 1e-9 USD) for money,
nanoseconds (`int`) for billed machine time, so that money made from it is exact.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

Operation = Literal["generate", "edit", "upscale", "remove_background"]
Format = Literal["png", "jpeg", "webp"]
Safety = Literal["strict", "standard", "relaxed"]
SizeDialect = Literal[
    "image_size", "width_height", "aspect_ratio", "size", "aspect_ratio_megapixels", "custom_ratio", "input"
]
"""How an endpoint is told a size. `aspect_ratio_megapixels`: two fields, and sizes named "16:9 0.25";
`custom_ratio`: `aspect_ratio: custom` with `width` and `height` beside it; `input`: not at all, for the picture is as
large as the first one it is made from."""
InputDialect = Literal["image_url", "image_urls", "image", "images", "input_image", "input_images", "reference_images"]
"""The field an endpoint takes input pictures in; a plural takes a list."""
FidelityDialect = Literal["always", "asked"]
"""How an endpoint keeps closely to its input pictures: always, unasked; or when it is asked to, by OpenAI's field
`input_fidelity`."""
SafetyDialect = Literal["checker", "tolerance", "disable_checker", "none"]


class SizeRule(Struct, frozen=True, kw_only=True):
    """Which exact pixel sizes an endpoint draws; anything else it would silently change, so we refuse it."""

    min_side: int = 256
    max_side: int = 2048
    multiple: int = 8
    max_pixels: int | None = None
    named: Mapping[str, tuple[int, int]] = {}
    """When given, only these sizes exist, each under the seller's own name for it ("16:9": (2752, 1536))."""

    def allows(self, width: int, height: int) -> bool:
        """Whether the endpoint paints exactly `width` x `height`."""
        if self.named:
            return (width, height) in self.named.values()
        return (
            self.min_side <= min(width, height)
            and max(width, height) <= self.max_side
            and width % self.multiple == 0
            and height % self.multiple == 0
            and (self.max_pixels is None or width * height <= self.max_pixels)
        )

    def name_of(self, width: int, height: int) -> str | None:
        """The seller's name for a size, where sizes have names."""
        return next((name for name, size in self.named.items() if size == (width, height)), None)


class Abilities(Struct, frozen=True, kw_only=True):
    """What one endpoint can be asked for, and in which words. From the catalogue, never from code."""

    operations: tuple[Operation, ...] = ("generate",)
    sizes: SizeRule = SizeRule()
    max_count: int = 1
    formats: tuple[Format, ...] = ("jpeg", "png")
    seed: bool = True
    steps: tuple[int, int] | None = None
    """Accepted range, or None where the endpoint decides by itself."""
    default_steps: int | None = None
    guidance: tuple[float, float] | None = None
    negative_prompt: bool = False
    loras: int = 0
    """How many LoRA weights one order may name."""
    transparent: bool = False
    references: tuple[int, int] = (0, 0)
    """Fewest and most input pictures one order takes."""
    mask: bool = False
    """Whether an order may say by a mask which part of the first input picture to draw anew."""
    needs_mask: bool = False
    """Whether it must."""
    strength: tuple[float, float] | None = None
    """Accepted range of how far the picture may leave its first input, or None where the endpoint decides by itself."""
    fidelity: FidelityDialect | None = None
    """None: it makes no promise of its own; with `strength` it can be told by that."""
    input_dialect: InputDialect | None = None
    size_dialect: SizeDialect = "image_size"
    safety_dialect: SafetyDialect = "none"
    fixed: Mapping[str, object] = {}
    """Fields sent with every order, in the seller's own words (`prompt_upsampling: false`)."""


class Lora(Struct, frozen=True):
    """One set of adapter weights: where it lies and how strongly it pulls."""

    path: str
    scale: float = 1.0


class ImageRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What should be drawn, in no provider's dialect."""

    operation: Operation = "generate"
    prompt: str = ""
    width: int = 1024
    height: int = 1024
    count: int = 1
    format: Format = "png"
    steps: int | None = None
    seed: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    loras: tuple[Lora, ...] = ()
    transparent: bool = False
    safety: Safety = "standard"
    references: tuple[tuple[int, int], ...] = ()
    """Width and height of every input picture, in the caller's order; their bytes travel in `Order.inputs`."""
    mask: bool = False
    """Whether a mask says which part of the first input picture is drawn anew (`Order.mask`)."""
    strength: float | None = None
    """How far the picture may leave its first input: 0 not at all, 1 freely."""
    fidelity: Literal["high", "low"] | None = None
    """How closely the picture must keep to its inputs; `low` asks for no more than is usual."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.width, self.height


class Head(Struct, frozen=True):
    """What the first bytes of a picture say of it; sizes in pixels."""

    format: Format
    width: int
    height: int


class Input(Struct, frozen=True, weakref=True):
    """A picture that the caller handed in: found whole, and no larger than we accept."""

    data: bytes
    head: Head


class Order(Struct, frozen=True, kw_only=True):
    """One thing asked of one provider: all an adapter needs to translate, and nothing more."""

    attempt_id: str
    """Ours, unique per order; travels to the provider where its protocol has room for it."""
    endpoint: str
    """The provider's id of the model, from the catalogue."""
    abilities: Abilities
    request: ImageRequest
    timeout: float
    """Seconds until the adapter must give up with `TimedOut`."""
    inputs: tuple[Input, ...] = ()
    """The pictures to work from, as many as `request.references` and in their order."""
    mask: Input | None = None
    """As large as the first input; transparent where it is to be drawn anew."""
    unstored: bool = False
    """Tell the provider to store nothing of it, where its account's terms say that it can be told."""
    callback_url: str | None = None
    """Where the provider may report the end, for sellers that call back."""


class Ticket(Struct, frozen=True):
    """A provider's receipt for an accepted order; enough to find it again after a crash."""

    id: str
    data: Mapping[str, str] = {}


class Image(Struct, frozen=True, kw_only=True):
    """One picture as the provider delivered it: its bytes, and what the provider said about it."""

    data: bytes
    seed: int | None = None
    flagged: bool = False
    """The provider's own safety check marked it (fal: `has_nsfw_concepts`)."""
    measured: Head | None = None
    """Read from bytes that were found whole (`providers.picture.deliver` does both); None where the adapter did not
    look, and the gateway will."""


class Tokens(Struct, frozen=True, kw_only=True):
    """What an order consumed, for sellers that bill by tokens."""

    text_in: int = 0
    image_in: int = 0
    image_out: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """What an order consumed, in the units sellers bill."""

    images: tuple[tuple[int, int], ...] = ()
    """Width and height of every picture the provider made, delivered to us or not."""
    steps: int | None = None
    references: tuple[tuple[int, int], ...] = ()
    """Width and height of every input picture."""
    machine_ns: int = 0
    """Nanoseconds of a machine's time, for sellers that bill it."""
    machine: str = ""
    """Which machine, where it is one of ours."""
    tokens: Tokens | None = None
    """As the seller counted them; None where it counts none."""
    nano_usd: int | None = None
    """The provider's own word on what it charges for this order; it outranks our tariff."""


class Generation(Struct, frozen=True, kw_only=True):
    """What an order delivered."""

    images: tuple[Image, ...]
    usage: Usage
    ticket: Ticket | None = None
    queue_s: float | None = None
    """Seconds the order waited at the provider before work began, where it tells."""
    run_s: float | None = None
    """Seconds of work, where the provider tells."""


class UsageRecord(Struct, frozen=True, kw_only=True):
    """One line of what a provider says it will bill: an order, or (without `request_id`) an endpoint's total."""

    endpoint: str
    nano_usd: int
    at: datetime
    request_id: str | None = None
    discount: Decimal = Decimal(0)
    """Percent taken off the list price in it, where the provider says."""
    pictures: int | None = None
    """Pictures that were made, where the provider says."""
    units: Decimal | None = None
    """How many of its billing units it counted, where the provider says."""
    unit_nano_usd: int | None = None
    """What one of them costs by its list."""


class UsageTotal(Struct, frozen=True, kw_only=True):
    """What an account was billed for one endpoint on one day (UTC), whoever ordered it."""

    endpoint: str
    day: datetime
    units: Decimal
    unit: str
    nano_usd: int


class ListedPrice(Struct, frozen=True, kw_only=True):
    """A price as the provider's own list shows it."""

    endpoint: str
    unit: str
    nano_usd: int


class ListedOrder(Struct, frozen=True, kw_only=True):
    """An order as its seller lists it."""

    ticket: Ticket
    at: datetime
    """When the seller took it (UTC)."""


class Load(Struct, frozen=True, kw_only=True):
    """How busy one node of a pool is."""

    running: int
    queued: int
    slots: int


CancelOutcome = Literal["unbilled", "finished", "running", "unknown"]
"""`unbilled`: it never ran and costs nothing. `finished`: too late, the result can be collected.
`running`: asked to stop, may still be billed. `unknown`: the provider gave no clear answer."""

OnAccepted = Callable[[Ticket], Awaitable[None]]


class Provider(Protocol):
    """One seller of images. Translates; never retries, prices, routes, caches or logs prompts."""

    @property
    def name(self) -> str:
        """The provider account this connection speaks for."""

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        """Submit `order` exactly once and bring its pictures home.

        `on_accepted` is awaited the moment the provider has the order, before any waiting.
        Raises a `providers.errors.ProviderError`, which says what is owed.
        """

    async def aclose(self) -> None:
        """Give back connections."""


# What some sellers can do and others cannot; each a protocol of its own, found with isinstance. Never a stub.


@runtime_checkable
class Resumable(Protocol):
    """Can bring home an order from its ticket alone."""

    async def resume(self, order: Order, ticket: Ticket) -> Generation:
        """Wait for the order behind `ticket` and fetch it; raises as `generate` does."""


@runtime_checkable
class LoadsFirst(Protocol):
    """Has something slow to load, an SDK, before its first order can go out."""

    async def loaded(self) -> None:
        """Wait for that; if it fails, `generate` says so. Orders are counted against rates from here on."""


@runtime_checkable
class Cancels(Protocol):
    """Can be told that an order is no longer wanted."""

    async def cancel(self, ticket: Ticket) -> CancelOutcome:
        """Ask once; answers what is known about the money."""


@runtime_checkable
class FindsOrders(Protocol):
    """Lists the orders it took, so that one whose receipt was lost can be found again."""

    async def find(self, endpoint: str, since: datetime) -> Sequence[ListedOrder]:
        """Every order of an endpoint taken from a moment (UTC) on, whoever of this account made it."""


@runtime_checkable
class ListsPrices(Protocol):
    """Tells prices over its API."""

    @property
    def names_every_price(self) -> bool:
        """Whether a price that it named before and names no longer is news; not where it tells only what was used."""

    async def list_prices(self, endpoints: Sequence[str]) -> Sequence[ListedPrice]:
        """Today's price per billing unit of each endpoint it knows."""


@runtime_checkable
class ListsModels(Protocol):
    """Tells which of its models it still sells."""

    async def still_sold(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Those of some endpoints that can be ordered from today; raises a `ProviderError` when it cannot be asked."""


@runtime_checkable
class ReportsUsage(Protocol):
    """Tells what it will bill."""

    async def usage(self, since: datetime, endpoints: Sequence[str]) -> Sequence[UsageRecord]:
        """Every billed line of `endpoints` since a moment (UTC)."""


@runtime_checkable
class BillsByOrder(ReportsUsage, Protocol):
    """Its report names each order within moments, and the last minutes of it are one question away."""

    bills_by_order: Literal[True]


@runtime_checkable
class ReportsTotals(Protocol):
    """Tells what an account was billed in all, also for what was never ordered here."""

    async def totals(self, since: datetime) -> Sequence[UsageTotal]:
        """Every endpoint's days from the one of a moment (UTC) on; raises a `ProviderError` when it cannot be asked."""


@runtime_checkable
class Estimates(Protocol):
    """Says what units of its endpoints will cost this account: a second opinion beside its list."""

    async def estimate(self, units: Mapping[str, int]) -> int:
        """Nano-dollars of so many units of each endpoint, together; raises a `ProviderError`."""


@runtime_checkable
class BillsNobody(Protocol):
    """Machines of our own: paid for by the hour, so that an order whose work nobody measured is owed to nobody."""

    bills_nobody: Literal[True]


@runtime_checkable
class CallsBack(Protocol):
    """Reports the end of an order by webhook."""

    async def read_callback(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Verify and take in one callback; False when its signature or stamp is not to be trusted."""


@runtime_checkable
class Erases(Protocol):
    """Can be told to forget what it keeps of an order."""

    async def erase(self, ticket: Ticket) -> bool:
        """Have the order's inputs and outputs deleted; False when the provider would not, or knows nothing of it.

        Raises a `ProviderError` when it cannot be asked.
        """


@runtime_checkable
class ReportsLoad(Protocol):
    """Knows how busy its machines are."""

    async def load(self) -> Mapping[str, Load]:
        """Load by node name."""


@runtime_checkable
class ChecksAccount(Protocol):
    """Can prove without spending that key and endpoints are good."""

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """One sentence per fault found; empty when all is well."""
