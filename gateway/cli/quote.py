"""`pixelgate quote`: what every offer would charge, from the catalogue alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, say, table
from gateway.requests.quoting import Invoices, QuotedOffer, invoices_of, quoted_service
from gateway.revisions import load_revision, load_services
from gateway.settings import Settings
from policies.billing import Billing
from policies.catalog_file import moment_of
from policies.types import Tier
from providers.contract import Operation

_SHOWN_REASON = 70


def quote(  # noqa: PLR0913 - the terms of a request
    *,
    model: str = "auto",
    tier: Literal["preview", "standard", "export"] | None = None,
    size: str = "1024x1024",
    n: int = 1,
    steps: int | None = None,
    operation: Operation = "generate",
    references: Annotated[int | None, Parameter(validator=Number(gte=0, lte=16))] = None,
    transparent: bool = False,
    seconds: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    at: str | None = None,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Price a request at every offer, cheapest feasible first. Needs no keys and orders nothing.

    Accounts without a key are priced too. Exit code 1: no offer can serve the request. What is sold beside pictures
    (`services.yaml`) is shown by its name: `--model f5-tts --seconds 45`.

    Parameters
    ----------
    model
        A model or alias, `auto`, or either with a suffix: flux-dev:cheapest, auto:fal. Or a service.
    tier
        The least tier; the policy's default intent decides when left out.
    size
        WIDTHxHEIGHT in pixels, or a name such as landscape_4_3.
    n
        Pictures, 1 to 10.
    steps
        Steps of the model; its default when left out.
    operation
        What is done: drawing from words, or something with input pictures.
    references
        Input pictures, each as large as the picture asked for; one when left out, none for drawing from words.
    transparent
        With a transparent background: where nobody paints one, two orders, and the price of both.
    seconds
        Length, for a service that is priced by it.
    at
        The moment whose prices count, as far as they are known: 2026-12-21, or 2026-12-21T15:00Z. Now when left out.
    """
    from gateway.cli.offline import Work, weigh

    settings = where.settings()
    service = load_services(settings).get(model)
    if service is not None:
        return _show_service(quoted_service(service, n, seconds), json=json)
    if references is None:
        references = 0 if operation == "generate" else 1
    work = Work(operation=operation, references=references)
    fields = {"model": model, "size": size, "n": n, "steps": steps}
    if transparent:
        fields["background"] = "transparent"
    revision = load_revision(settings, every_account=True, at=moment(at))
    invoices = _invoices(settings, revision.catalog.billings, moment(at) or datetime.now(UTC))
    offers = weigh(revision, fields, tier=Tier[tier.upper()] if tier else None, work=work).quotes(invoices)
    return _show(offers, json=json, found=any(offer.feasible for offer in offers))


def _invoices(settings: Settings, billings: Mapping[str, Billing], at: datetime) -> Invoices:
    """How the invoices stand by the records of a gateway that has run here; anew, where none has."""
    path = Path(settings.database_url.partition(":///")[2])
    if not billings or not path.exists():
        return Invoices(at=at, billings=billings)

    async def read() -> Invoices:
        db = open_records(settings)
        try:
            return await invoices_of(db, billings, at)
        finally:
            await db.aclose()

    return run_async(read())


def moment(text: str | None) -> datetime | None:
    """The moment that a person typed."""
    try:
        return None if text is None else moment_of(text)
    except ValueError as error:
        raise Stop(f"--at: {error}") from None


def _show(offers: list[QuotedOffer], *, json: bool, found: bool) -> int:
    if json:
        print_json({"offers": offers})
    else:
        _print(offers)
    return 0 if found else 1


def _show_service(quoted: QuotedOffer, *, json: bool) -> int:
    if json:
        print_json({"offers": [quoted]})
    else:
        print(table([("offer", "price", "charged for", "tariff"), _row(quoted)], right=frozenset({1})))
        print(f"\n{quoted.reason}")
    return 0 if quoted.nano_usd is not None else 1


def _row(offer: QuotedOffer) -> tuple[str, str, str, str]:
    about = "" if offer.certain or offer.nano_usd is None else "about "
    return offer.offer, about + dollars(offer.nano_usd), offer.unit, offer.tariff


def _print(offers: list[QuotedOffer]) -> None:
    feasible = [offer for offer in offers if offer.feasible]
    others = [offer for offer in offers if not offer.feasible]
    if feasible:
        rows = [("offer", "price", "charged for", "tariff")]
        rows += [_row(offer) for offer in feasible]
        print(table(rows, right=frozenset({1})))
        _print_expected(feasible)
    else:
        say("no offer can serve this request")
    if others:
        print("\nnot for this request:")
        print(table([(f"  {offer.offer}", dollars(offer.nano_usd), _short(offer.reason)) for offer in others]))


def _print_expected(offers: list[QuotedOffer]) -> None:
    """What the accounts' invoices will make of these prices, where that is something else."""
    others = [offer for offer in offers if offer.why]
    if others:
        print("\nas the invoices stand:")
        print(table([(f"  {offer.offer}", dollars(offer.expected_nano_usd), "; ".join(offer.why)) for offer in others]))


def _short(reason: str) -> str:
    return reason if len(reason) <= _SHOWN_REASON else f"{reason[: _SHOWN_REASON - 3]}..."
