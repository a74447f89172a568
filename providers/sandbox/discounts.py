"""What the sellers take off their list prices, month by month, and what was paid ahead: their own reckoning.

Like `invoice.py`, it shares no code with the gateway. A tab belongs to one account and is written in billing order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

_NANO = 1_000_000_000


class Free(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many pictures, or so many dollars, for nothing."""

    pictures: int = 0
    usd: str = "0"
    every: Literal["month", "lifetime"] = "month"
    begins: datetime | None = None
    ends: datetime | None = None


class Prepaid(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A purchase of credit."""

    usd: str
    bought: datetime | None = None
    lapses: datetime | None = None


class Royalty(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner of weights bills for a month: a fee with pictures in it, and a price for others."""

    monthly_usd: str = "0"
    pictures: int = 0
    further_usd: str = "0"


class Contract(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account's terms."""

    zone: str = "UTC"
    off: tuple[tuple[int, str], ...] = ()
    """(request of the month, percent off from it on), ascending."""
    backdated: bool = False
    """Whether percents hold for the month's earlier requests, too."""
    free: tuple[Free, ...] = ()
    prepaid: tuple[Prepaid, ...] = ()
    royalties: dict[str, Royalty] = {}
    """By endpoint."""


class Slip(Struct, frozen=True, kw_only=True):
    """What one order comes to, in nano-dollars."""

    owed: int
    percent: Fraction
    back: int
    """Less for the month's earlier requests."""
    prepaid: int
    """How much of it the credit covers."""


class Tab:
    """One account's running bill."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._requests: Counter[str] = Counter()
        self._list: Counter[str] = Counter()
        self._owed: Counter[str] = Counter()
        self._drawn = [0] * len(contract.prepaid)
        self._free: Counter[tuple[int, str]] = Counter()
        self._drawings: Counter[tuple[str, str]] = Counter()

    def enter(self, nano_usd: int, pictures: int, at: datetime) -> Slip:
        """Bill one order of a list price."""
        month = self._month(at)
        if nano_usd == 0:
            return Slip(owed=0, percent=Fraction(0), back=0, prepaid=0)
        paying = pictures - self._pictures_free(month, pictures, at)
        full = nano_usd if paying == pictures else round(Fraction(nano_usd * paying, pictures))
        back = 0
        self._requests[month] += 1
        percent = self._percent(self._requests[month])
        if self.contract.backdated:
            more = percent - self._percent(self._requests[month] - 1)
            back = round(self._list[month] * more / 100)
        self._list[month] += full
        owed = round(full * (100 - percent) / 100)
        owed -= self._dollars_free(month, owed, at)
        back = self._paid_back(month, back, owed, at)
        self._owed[month] += owed - back
        prepaid = self._take(owed, at) - self._put_back(back, at)
        return Slip(owed=owed, percent=percent, back=back, prepaid=prepaid)

    def refund(self, nano_usd: int, at: datetime) -> int:
        """Give money back; how much of it went back into the credit."""
        return self._put_back(nano_usd, at)

    def royalty(self, endpoint: str, pictures: int, at: datetime) -> Sequence[tuple[str, int]]:
        """What the owner of the weights bills beside it: what for, and nano-dollars."""
        terms = self.contract.royalties.get(endpoint)
        if terms is None or pictures == 0:
            return ()
        month = self._month(at)
        drawn = self._drawings[month, endpoint]
        self._drawings[month, endpoint] += pictures
        lines = []
        if drawn == 0 and (fee := _nano(terms.monthly_usd)):
            lines.append((f"licence {month}", fee))
        further = sum(number > terms.pictures for number in range(drawn + 1, drawn + pictures + 1))
        if due := further * _nano(terms.further_usd):
            lines.append(("further pictures", due))
        return lines

    @property
    def credit(self) -> Sequence[int]:
        """What is left of each purchase, lapsed ones as they were left."""
        return [_nano(lot.usd) - drawn for lot, drawn in zip(self.contract.prepaid, self._drawn, strict=True)]

    def _month(self, at: datetime) -> str:
        zone = UTC if self.contract.zone == "UTC" else ZoneInfo(self.contract.zone)
        return at.astimezone(zone).strftime("%Y-%m")

    def _percent(self, request: int) -> Fraction:
        reached = [Fraction(percent) for first, percent in self.contract.off if request >= first]
        return reached[-1] if reached else Fraction(0)

    def _pictures_free(self, month: str, pictures: int, at: datetime) -> int:
        gone = 0
        for index, free in enumerate(self.contract.free):
            while free.pictures and gone < pictures and self._is_on(free, at):
                key = index, month if free.every == "month" else ""
                if self._free[key] == free.pictures:
                    break
                self._free[key] += 1
                gone += 1
        return gone

    def _dollars_free(self, month: str, owed: int, at: datetime) -> int:
        gone = 0
        for index, free in enumerate(self.contract.free):
            if (total := _nano(free.usd)) and self._is_on(free, at):
                key = index, month if free.every == "month" else ""
                used = min(total - self._free[key], owed - gone)
                self._free[key] += used
                gone += used
        return gone

    def _paid_back(self, month: str, back: int, owed: int, at: datetime) -> int:
        """How much of what is taken back was ever paid in money; dollars that were free are free again."""
        paid = min(back, self._owed[month] + owed)
        rest = back - paid
        for index in range(len(self.contract.free) - 1, -1, -1):
            free = self.contract.free[index]
            if Fraction(free.usd) and self._is_on(free, at):
                key = index, month if free.every == "month" else ""
                again = min(self._free[key], rest)
                self._free[key] -= again
                rest -= again
        return paid

    @staticmethod
    def _is_on(free: Free, at: datetime) -> bool:
        return not ((free.begins and at < free.begins) or (free.ends and at >= free.ends))

    def _purchases(self, at: datetime) -> Sequence[int]:
        """The purchases that count, those that lapse first in front."""
        never = datetime.max.replace(tzinfo=UTC)
        lots = self.contract.prepaid
        good = [i for i, lot in enumerate(lots) if (lot.bought or at) <= at < (lot.lapses or never)]
        return sorted(good, key=lambda i: (lots[i].lapses or never, i))

    def _take(self, owed: int, at: datetime) -> int:
        left = owed
        for index in self._purchases(at):
            used = min(_nano(self.contract.prepaid[index].usd) - self._drawn[index], left)
            self._drawn[index] += used
            left -= used
        return owed - left

    def _put_back(self, amount: int, at: datetime) -> int:
        left = amount
        for index in reversed(self._purchases(at)):
            returned = min(self._drawn[index], left)
            self._drawn[index] -= returned
            left -= returned
        return amount - left


def _nano(usd: str) -> int:
    return int(Fraction(usd) * _NANO)
