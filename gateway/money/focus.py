"""What we owe sellers in the columns of FOCUS, the FinOps Open Cost and Usage Specification, version 1.2.

One row for each posted entry of a cost book. Costs are dollars with every digit; columns that begin with x_ are ours,
as the specification provides.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from gateway.storage.activity import PostedCost
from policies.money import to_usd

_PUBLISHERS = {"fal": "fal.ai", "together": "Together AI", "replicate": "Replicate", "openai": "OpenAI"}

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName",
    "PublisherName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName",
    "ServiceSubcategory", "SkuId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags",
    "x_AttemptId", "x_CallId", "x_KeyId", "x_Note", "x_Size",
)  # fmt: skip


def row_of(cost: PostedCost, kinds: Mapping[str, str]) -> dict[str, str]:
    """One posted entry as FOCUS has it; `kinds` says what kind of seller each account is."""
    kind = kinds.get(cost.account, cost.account)
    seller = _PUBLISHERS.get(kind, kind)
    billed = to_usd(cost.amount)
    started = cost.started or cost.at
    model = cost.offer_id.partition(":")[2]
    adjusts = cost.kind == "correction" or cost.note == "overrun"
    quantity = "" if adjusts else str(cost.delivered)
    start, end = _month(cost.at)
    return {
        "BilledCost": billed,
        "BillingAccountId": cost.account,
        "BillingAccountName": cost.account,
        "BillingAccountType": "Provider account",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _stamp(end),
        "BillingPeriodStart": _stamp(start),
        "ChargeCategory": "Adjustment" if cost.kind == "correction" else "Usage",
        "ChargeClass": "",
        "ChargeDescription": cost.note if adjusts else f"{cost.delivered} pictures by {model or cost.endpoint}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _stamp(max(cost.at, started + timedelta(microseconds=1))),
        "ChargePeriodStart": _stamp(started),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": "" if adjusts else "Images",
        "ContractedCost": billed,
        "EffectiveCost": billed,
        "InvoiceIssuerName": seller,
        "ListCost": billed if cost.listed is None else to_usd(cost.listed),
        "PricingCategory": "" if cost.kind == "correction" else "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": "" if adjusts else "Images",
        "ProviderName": seller,
        "PublisherName": seller,
        "ResourceId": cost.endpoint,
        "ResourceName": model or cost.endpoint,
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Image generation",
        "ServiceSubcategory": "Generative AI",
        "SkuId": cost.endpoint,
        "SubAccountId": cost.team,
        "SubAccountName": cost.team,
        "SubAccountType": "Team" if cost.team else "",
        "Tags": msgspec.json.encode(dict(sorted(cost.tags.items()))).decode() if cost.tags else "",
        "x_AttemptId": cost.attempt_id,
        "x_CallId": cost.call_id,
        "x_KeyId": cost.key_id,
        "x_Note": cost.note,
        "x_Size": f"{cost.width}x{cost.height}" if cost.width else "",
    }


def _month(at: datetime) -> tuple[datetime, datetime]:
    first = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first, (first + timedelta(days=31)).replace(day=1)


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
