"""What `billing:` of an account may say in gateway.yaml: shape, and what makes no sense in itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from policies.billing import Allowance, Billing, Lot, VolumeTier, WeightsLicence
from policies.catalog_file import Document, Moment, Name
from policies.catalog_file import Dollars as UnitPrice
from policies.policy_file.values import Dollars

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,2})?)\s*%", re.ASCII)


def _parts(value: object) -> int:
    """Parts of `policies.billing.WHOLE`, hundredths of a percent, of `5%` or `7.25%`."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 0 < Decimal(found[1]) < 100:
        raise ValueError(f"expected a discount such as 5% or 7.25%, below 100%, got {value!r}")
    return int(Decimal(found[1]) * 100)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        if name != "UTC":
            raise ValueError(f"no time zone is called {name!r}: write one such as Europe/Berlin, or UTC") from None
    return name


Discount = Annotated[int, BeforeValidator(_parts)]
Zone = Annotated[str, AfterValidator(_zone)]


class VolumeEntry(Document):
    """A discount from a request of the month on."""

    from_request: PositiveInt
    """The first request of the month that it holds for; the month's first is 1."""
    discount: Discount


class AllowanceEntry(Document):
    """Something for nothing."""

    name: Name
    images: PositiveInt | None = None
    amount: Annotated[Dollars, Field(gt=0)] | None = None
    per: Literal["month", "once"]
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    """The first moment at which it is over."""

    @model_validator(mode="after")
    def _one_kind(self) -> AllowanceEntry:
        if (self.images is None) == (self.amount is None):
            raise ValueError("an allowance says exactly one of images and amount")
        _in_order(self.valid_from, self.valid_to, "valid_to")
        return self


class CreditEntry(Document):
    """Credit bought ahead."""

    name: Name
    amount: Annotated[Dollars, Field(gt=0)]
    valid_from: Moment | None = None
    expires: Moment | None = None
    """The first moment at which what is left of it is lost."""
    slots: PositiveInt | None = None
    """Orders in flight that the account allows while some of it is left."""

    @model_validator(mode="after")
    def _ordered(self) -> CreditEntry:
        _in_order(self.valid_from, self.expires, "expires")
        return self


class LicenceFee(Document):
    """What the owner of a model's weights is paid."""

    model: Name
    fee: Dollars = 0
    """A month, due with its first picture."""
    included: NonNegativeInt = 0
    """Pictures a month that the fee covers."""
    overage: UnitPrice | None = None
    """For each further picture."""

    @model_validator(mode="after")
    def _some(self) -> LicenceFee:
        if not self.fee and self.overage is None:
            raise ValueError("a licence that costs nothing needs no entry; name its fee, its overage, or both")
        return self


class BillingEntry(Document):
    """How the seller's invoice is made from its list prices."""

    zone: Zone = Field(default="UTC", description="Where the seller's months begin: UTC, or a zone's name.")
    volume: tuple[VolumeEntry, ...] = Field(
        default_factory=tuple, description="Discounts, each from a request of the month on."
    )
    applies: Literal["marginal", "whole"] | None = Field(
        default=None,
        description="Whether a discount holds from its request on (`marginal`), or for those before it in the month, "
        "too (`whole`).",
    )
    certain_to: PositiveInt | None = Field(
        default=None,
        description="The last request of a month whose discount was published; beyond it the last one is kept, and "
        "said to be uncertain.",
    )
    free: tuple[AllowanceEntry, ...] = Field(
        default_factory=tuple, description="Pictures or money for nothing, `per` month or once."
    )
    credit: tuple[CreditEntry, ...] = Field(
        default_factory=tuple, description="Lots of credit that were paid for ahead, each with its end."
    )
    licences: tuple[LicenceFee, ...] = Field(
        default_factory=tuple, description="What the owners of weights are paid that our own machines draw with."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> BillingEntry:
        if self.volume and self.applies is None:
            raise ValueError("volume also needs applies: `marginal` or `whole`; sellers differ, so nothing is assumed")
        if not self.volume and (self.applies or self.certain_to):
            raise ValueError("applies and certain_to mean nothing without volume")
        _once([entry.name for entry in self.free], "free")
        _once([entry.name for entry in self.credit], "credit")
        _once([entry.model for entry in self.licences], "licences")
        return self

    def billing(self) -> Billing:
        """Turn what was typed into the value that is reckoned with."""
        return Billing(
            zone=self.zone,
            tiers=tuple(VolumeTier(tier.from_request, tier.discount) for tier in self.volume),
            applies=self.applies or "marginal",
            certain_to=self.certain_to,
            allowances=tuple(
                Allowance(
                    name=entry.name,
                    images=entry.images,
                    amount=entry.amount,
                    monthly=entry.per == "month",
                    since=entry.valid_from,
                    until=entry.valid_to,
                )
                for entry in self.free
            ),
            lots=tuple(
                Lot(name=lot.name, amount=lot.amount, since=lot.valid_from, expires=lot.expires, slots=lot.slots)
                for lot in self.credit
            ),
            licences=tuple(
                WeightsLicence(model=each.model, fee=each.fee, included=each.included, overage=each.overage or 0)
                for each in self.licences
            ),
        )


def _in_order(since: datetime | None, until: datetime | None, name: str) -> None:
    if since is not None and until is not None and until <= since:
        raise ValueError(f"{name} {until:%Y-%m-%d} is not after valid_from {since:%Y-%m-%d}")


def _once(names: Sequence[str], what: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{what} names {twice[0]!r} twice; what was used of it is counted by its name")
