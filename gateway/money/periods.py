"""Which days a report is about, in the time zone of whoever reads it."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.yaml_files import nearest

Kind: TypeAlias = Literal["daily", "weekly", "monthly"]
DAY = timedelta(days=1)
MONTH_DAYS = 365.25 / 12


class Period(Struct, frozen=True, kw_only=True):
    """Whole days, from midnight to midnight where `zone` is; `start` belongs to it, `end` does not. Both UTC."""

    kind: Kind
    start: datetime
    end: datetime
    zone: ZoneInfo
    now: datetime

    @property
    def over(self) -> bool:
        """Whether nothing more can happen in it."""
        return self.end <= self.now

    @property
    def first(self) -> date:
        """Its first day."""
        return self.start.astimezone(self.zone).date()

    @property
    def last(self) -> date:
        """Its last day."""
        return self.end.astimezone(self.zone).date() - DAY

    @property
    def months(self) -> float:
        """How much of a month has passed in it; never nothing."""
        passed = min(self.end, self.now) - self.start
        return max(passed / DAY, 1 / 24) / MONTH_DAYS


def period_of(kind: Kind, day: date | None, zone: ZoneInfo, now: datetime) -> Period:
    """The day, week (from Monday) or month that holds `day`; without one, the last that is over.

    Raises `InvalidRequest` for a period that has not begun.
    """
    today = now.astimezone(zone).date()
    first = _first(kind, today if day is None else day)
    if day is None:
        first = _first(kind, first - DAY)
    if first > today:
        raise InvalidRequest(
            f"Invalid 'date': {day} lies in the future; it is {today} in {zone.key}, and reports are about what was.",
            param="date",
        )
    start, end = (_midnight(each, zone) for each in (first, _next(kind, first)))
    return Period(kind=kind, start=start, end=end, zone=zone, now=now)


def month_of(text: str, now: datetime, field: str = "month") -> Period:
    """A month typed as 2026-11, in UTC, as sellers' invoices are. Raises `InvalidRequest`."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise InvalidRequest(
            f"Invalid '{field}': expected a month such as 2026-11, got {text!r}.", param=field
        ) from None
    if first > now.astimezone(UTC).date():
        raise InvalidRequest(f"Invalid '{field}': {text} lies in the future.", param=field)
    return period_of("monthly", first, ZoneInfo("UTC"), now)


def day_of(text: str) -> date:
    """A day typed as 2026-11-25. Raises `InvalidRequest`."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"Invalid 'date': expected a day such as 2026-11-25, got {text!r}.", param="date"
        ) from None


def zone_of(name: str) -> ZoneInfo:
    """A time zone of the IANA list. Raises `InvalidRequest`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(name, sorted(available_timezones()))
        raise InvalidRequest(
            f"Invalid 'tz': there is no time zone {name!r}; {hint or 'names are like Europe/Berlin or UTC.'}",
            param="tz",
        ) from None


def _first(kind: Kind, day: date) -> date:
    if kind == "weekly":
        return day - DAY * day.weekday()
    return day.replace(day=1) if kind == "monthly" else day


def _next(kind: Kind, first: date) -> date:
    if kind == "monthly":
        return (first + DAY * 31).replace(day=1)
    return first + (DAY * 7 if kind == "weekly" else DAY)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
