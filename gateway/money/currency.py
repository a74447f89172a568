"""Money in the currency of whoever reads it, at a rate they state. The books stay in nano-dollars."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.yaml_files import nearest
from policies.money import USD, to_usd

_LISTED = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
    CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF
    IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD
    MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB
    RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD
    UYU UZS VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CODES = frozenset(_LISTED.split())
"""Currencies in use, by ISO 4217."""

_SHOWN = ((Decimal("0.01"), 4), (Decimal("0.0001"), 6), (Decimal(0), 9))
"""From which amount people are shown how many digits after the point; files have them all."""


class Currency(Struct, frozen=True):
    """What amounts are shown in."""

    code: str = "USD"
    rate: Decimal = Decimal(1)
    """Units of it for one US dollar."""

    def exact(self, nano: int) -> str:
        """An amount with every digit: `0.002604662600`."""
        return to_usd(nano) if self.code == "USD" else f"{self._amount(nano):f}"

    def shown(self, nano: int) -> str:
        """An amount for people: `$12.3457` or `11.3580 EUR`."""
        amount = self._amount(nano)
        digits = next(digits for least, digits in _SHOWN if abs(amount) >= least or not amount)
        rounded = f"{amount:,.{digits}f}"
        if self.code != "USD":
            return f"{rounded} {self.code}"
        return f"-${rounded[1:]}" if rounded.startswith("-") else f"${rounded}"

    def _amount(self, nano: int) -> Decimal:
        return Decimal(nano) / USD * self.rate


def currency_of(code: str, rate: str | None) -> Currency:
    """The currency and rate that were typed. Raises `InvalidRequest`."""
    code = code.upper()
    if code not in CODES:
        hint = nearest(code, sorted(CODES))
        raise InvalidRequest(
            f"Invalid 'currency': {code!r} is no currency of ISO 4217; {hint or 'codes are like EUR.'}",
            param="currency",
        )
    if code == "USD" and rate is None:
        return Currency()
    if rate is None:
        raise InvalidRequest(
            f"Invalid 'rate': say how many {code} a US dollar is; no rate is looked up or assumed.", param="rate"
        )
    try:
        typed = Decimal(rate)
    except InvalidOperation:
        raise InvalidRequest(f"Invalid 'rate': expected a number such as 0.92, got {rate!r}.", param="rate") from None
    if not typed.is_finite() or typed <= 0 or (code == "USD" and typed != 1):
        raise InvalidRequest(f"Invalid 'rate': {rate} {code} for a US dollar cannot be.", param="rate")
    return Currency(code, typed)
