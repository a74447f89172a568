"""Decisions without a gateway: the shipped engine over the configured catalogue, with nothing in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from gateway.http.decisions import Explanation, explain
from gateway.http.generations import call_of
from gateway.http.model_names import names_of
from gateway.http.request_parsing import parse_generation
from gateway.ids import new_id
from gateway.requests import quoting
from gateway.requests.admission import Admission
from gateway.requests.call import Call, Caller
from gateway.requests.journal import decision_row, noted
from gateway.requests.market import Market
from gateway.requests.quoting import Invoices, QuotedOffer
from gateway.requests.terms import under_rules
from gateway.revisions import Revision
from policies.engine import CostEngine
from policies.types import Tier
from providers.contract import ImageRequest, Operation

_NOW = 0.0
"""Nothing has happened yet, so any moment will do."""


class Weighed(Struct, frozen=True, kw_only=True):
    """A hypothetical call, and what the engine says to it."""

    call: Call
    weighed: quoting.Weighed
    market: Market

    def quotes(self, invoices: Invoices) -> list[QuotedOffer]:
        """What every offer would charge, cheapest feasible first."""
        return quoting.quoted(self.call.request.count, self.weighed, self.market, invoices)

    def explanation(self) -> Explanation:
        """The decision in the shape of `GET /v1/decisions/{id}`."""
        first, then = self.weighed, self.weighed.then
        taken = [(first.ask, first.decision), *([then] if then is not None else ())]
        rows = [decision_row(self.call, ask, 0, decision, datetime.now(UTC)) for ask, decision in taken]
        return explain([noted(row.body) for row in rows], [])


class Work(Struct, frozen=True, kw_only=True):
    """What is to be done, where that is not drawing from words."""

    operation: Operation
    references: int
    """Input pictures, each as large as the picture that is asked for."""

    def request(self, drawn: ImageRequest) -> ImageRequest:
        """The same picture, made this way."""
        return replace(drawn, operation=self.operation, references=(drawn.size,) * self.references)


def weigh(  # noqa: PLR0913 - a call, and the world it comes into
    revision: Revision,
    fields: Mapping[str, object],
    *,
    team: str = "default",
    tier: Tier | None = None,
    work: Work | None = None,
    key: str = "",
    at: datetime | None = None,
    prepare: Callable[[CostEngine], None] | None = None,
) -> Weighed:
    """What the gateway would do with a generation body, if it stood idle; raises `GatewayError` for a bad body."""
    caller = Caller(key_id=key, team=team)
    wish = parse_generation(
        {**fields, "prompt": fields.get("prompt") or "-"}, names_of(revision.policy, revision.catalog), caller
    )
    call = call_of(wish, new_id("call"), caller, _NOW, "quote")
    if work is not None:
        call = replace(call, request=work.request(call.request))
    if tier is not None:
        call = replace(call, constraints=replace(call.constraints, tier=tier))
    call = under_rules(call, revision.policy, revision.catalog.resolve, at or datetime.now(UTC))
    per_order = revision.policy.images_per_order
    engine = CostEngine(revision.policy, revision.catalog.capacities, revision.catalog.offers)
    if prepare is not None:
        prepare(engine)
    market = Market(revision.catalog, Admission(lambda capacity, busy, spare: engine.room(capacity, busy, _NOW, spare)))
    weighed = quoting.weigh(call, per_order, None, market, lambda ask: engine.decide(ask, market, _NOW, "new"))
    return Weighed(call=call, weighed=weighed, market=market)
