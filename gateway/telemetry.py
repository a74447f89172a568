"""One JSON line per event, with known fields only, so that no prompt, key or picture can end in a log.

    telemetry.configure(sys.stderr.buffer)          once, by the process that serves
    log = telemetry.logger()
    log.info("order_accepted", attempt=..., offer=...)

Events are past-tense words of the glossary. A field that is not in `FIELDS` is left out and its name put under
`dropped`; strings are cut at 300 characters. `counts` counts every event, whatever the level, for metrics.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import BinaryIO, Literal, cast

import msgspec


@contextlib.contextmanager
def _as_if_not_installed(library: str) -> Iterator[None]:
    """Hide a library, unless it is loaded already."""
    hidden = library not in sys.modules
    if hidden:
        sys.modules[library] = None  # type: ignore[assignment]  # as the import system says that there is none
    try:
        yield
    finally:
        if hidden:
            del sys.modules[library]


# structlog loads rich where it finds it, for consoles that we do not write to: a tenth of what a start takes, and 5 MB.
with _as_if_not_installed("rich"):
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LONGEST = 300
GATHER_S = 0.2
"""Seconds that a line of no urgency may wait for others."""
_open_lines: set[Lines] = set()
atexit.register(lambda: flush())  # noqa: PLW0108  (defined below)

FIELDS = frozenset(
    {
        "account", "accounts", "at", "attempt", "attempts", "call", "capacity", "challenger", "code", "detail", "error",
        "event", "experiment",
        "in_flight", "intent", "key_id", "latency", "level", "method", "model", "nano_usd", "offer", "offers",
        "outcome", "path", "pictures", "pid", "policy", "prices", "queue_s", "reason", "request_id", "resolved",
        "retry_after", "revision", "run_s", "seconds", "sizes", "state", "status", "suspended", "team", "tier", "url",
        "where", "work",
    }
)  # fmt: skip
"""Everything a log line may say. `detail` is a provider's or our own error text, scrubbed where it is made."""

counts: Counter[str] = Counter()
"""How often each event was logged since the process began."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


def configure(stream: BinaryIO, level: Level = "info") -> None:
    """Send log lines to `stream` from here on."""
    structlog.configure(
        processors=[_line],
        wrapper_class=_told_directly(structlog.make_filtering_bound_logger(_NUMBERS[level])),
        logger_factory=lambda *_: Lines(stream),
        cache_logger_on_first_use=True,
    )


def _told_directly(usual: type[FilteringBoundLogger]) -> type[FilteringBoundLogger]:
    """A logger whose `info`, one for each call answered, skips what only loggers with values of their own need."""
    if usual.info is usual.debug:  # both say nothing
        return usual

    class Told(usual):  # type: ignore[valid-type, misc]  # made at run time
        def info(self, event: str, **fields: object) -> None:
            fields["event"] = event
            self._logger.info(_line(self._logger, "info", {**self._context, **fields} if self._context else fields))

    return Told


class Lines:
    """Gathers lines and writes them together: a busy gateway's lines would cost a system call each.

    Errors and warnings go out at once, with all before them; the rest with the first one after `GATHER_S`, or `flush`.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._gathered: list[bytes] = []
        self._written = 0.0
        _open_lines.add(self)

    def debug(self, line: bytes) -> None:
        """Take a line that can wait a moment."""
        self._gathered.append(line)
        now = monotonic()
        if now - self._written >= GATHER_S:
            self._written = now
            self.flush()

    info = debug

    def warning(self, line: bytes) -> None:
        """Take a line somebody may be waiting for."""
        self._gathered.append(line)
        self.flush()

    error = critical = exception = fatal = err = failure = warn = warning
    log = msg = debug

    def flush(self) -> None:
        """Write what has gathered."""
        if self._gathered:
            lines, self._gathered = self._gathered, []
            self._stream.write(b"\n".join(lines) + b"\n")
            self._stream.flush()


def flush() -> None:
    """Write what has gathered in any log; to be called now and then, and at the end."""
    for lines in tuple(_open_lines):
        lines.flush()


def logger() -> FilteringBoundLogger:
    """Give a logger; its `info`, `warning` and `error` take an event and fields."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def _line(_: WrappedLogger, method: str, event: EventDict) -> bytes:
    """Count an event, stamp it, keep what may be said of it and render it, in one pass over its fields.

    Of an exception that rides along only class and place are said: its text and its locals may hold a prompt.
    """
    counts[str(event["event"])] += 1
    kept: EventDict = {"at": datetime.now(UTC), "level": "error" if method == "exception" else method}
    dropped: list[str] = []
    for name, value in event.items():
        if name in FIELDS:
            kept[name] = value[:_LONGEST] if isinstance(value, str) else value
        elif name != "exc_info":
            dropped.append(name)
    if given := event.get("exc_info"):
        error = given if isinstance(given, BaseException) else sys.exc_info()[1]
        kept["error"] = type(error).__name__
        kept["where"] = _where(error)
    if dropped:
        kept["dropped"] = sorted(dropped)
    return _encode(kept)


def _where(error: BaseException | None) -> str:
    """Say where it was raised, innermost first, without the message: that may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-6:] if error else []
    return " < ".join(
        f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in reversed(frames)
    )
