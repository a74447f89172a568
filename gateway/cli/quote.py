"""`pixelgate quote`: what every offer would charge, from the catalogue alone."""

from __future__ import annotations

from typing import Literal

from gateway.cli.shell import HERE, Json, Where, dollars, print_json, say, table
from gateway.requests.quoting import QuotedOffer
from gateway.revisions import load_revision
from policies.types import Tier

_SHOWN_REASON = 70


def quote(  # noqa: PLR0913 - the terms of a request
    *,
    model: str = "auto",
    tier: Literal["preview", "standard", "export"] | None = None,
    size: str = "1024x1024",
    n: int = 1,
    steps: int | None = None,
    operation: Literal["generate"] = "generate",
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Price a request at every offer, cheapest feasible first. Needs no keys and orders nothing.

    Accounts without a key are priced too. Exit code 1: no offer can serve the request.

    Parameters
    ----------
    model
        A model or alias, `auto`, or either with a suffix: flux-dev:cheapest, auto:fal.
    tier
        The least tier; the policy's default intent decides when left out.
    size
        WIDTHxHEIGHT in pixels.
    n
        Pictures, 1 to 10.
    steps
        Steps of the model; its default when left out.
    operation
        Drawing from words is what this release can do.
    """
    from gateway.cli.offline import weigh

    revision = load_revision(where.settings(), every_account=True)
    fields = {"model": model, "size": size, "n": n, "steps": steps, "prompt": operation}
    offers = weigh(revision, fields, tier=Tier[tier.upper()] if tier else None).quotes()
    if json:
        print_json({"offers": offers})
    else:
        _print(offers)
    return 0 if any(offer.feasible for offer in offers) else 1


def _print(offers: list[QuotedOffer]) -> None:
    feasible = [offer for offer in offers if offer.feasible]
    others = [offer for offer in offers if not offer.feasible]
    if feasible:
        rows = [("offer", "price", "charged for", "tariff")]
        rows += [(o.offer, ("" if o.certain else "about ") + dollars(o.nano_usd), o.unit, o.tariff) for o in feasible]
        print(table(rows, right=frozenset({1})))
    else:
        say("no offer can serve this request")
    if others:
        print("\nnot for this request:")
        print(table([(f"  {offer.offer}", dollars(offer.nano_usd), _short(offer.reason)) for offer in others]))


def _short(reason: str) -> str:
    return reason if len(reason) <= _SHOWN_REASON else f"{reason[: _SHOWN_REASON - 3]}..."
