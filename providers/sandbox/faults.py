"""What goes wrong, when, and on whose order: scripted faults, deterministic for a seed.

A rule falls on submissions of a `provider` (and `account`, `model`; `*` patterns) `when` it says:
`share` of them, the `first` n, `every` n-th, or between `from_s` and `to_s` real seconds after the script was set;
several conditions must all hold. The first rule that falls on a submission is the one that counts.

`do` is one of these; `args` in brackets, times in real seconds:

- `400`..`599`: that status in the seller's own shape, unbilled [`retry_after`, `at`: submit|result|status|asset]
- `timeout`: accepted and billed when its work is over, but never answered [`at`: result|submit|status]
- `reset`: the work is done and billed, the connection breaks [`at`: result|submit (not accepted)|status|asset]
- `truncate`: half a picture [`keep`: 0.5, `lie`: promise the whole length, `json`: half the JSON instead]
- `slow`: `factor` 5 times the work, or exactly `seconds` [`body_s`: and the picture drips for so long]
- `refuse`: as for unsafe content; `black`: a black picture [`flagged`]; `html`: a web page [`status` 200, `at`]
- `wrong_size` [`width`, `height`, or `swap`]; `wrong_count` [`count`]: as made, so billed
- `lost_webhook`; `dup_webhook` [`copies` 1]; `cut_billing`: billed, but absent from the billing API
- `late_accept`: the job starts, its receipt is lost [`answer_after_s`: or merely late]

Faults that disturb an answer do so every time it is asked for, or `times` times when that is given.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

At = Literal["submit", "status", "result", "asset"]
KINDS = frozenset(
    {
        "timeout",
        "reset",
        "truncate",
        "slow",
        "refuse",
        "black",
        "wrong_size",
        "wrong_count",
        "html",
        "lost_webhook",
        "dup_webhook",
        "late_accept",
        "cut_billing",
    }
)
_DEFAULT_AT: Mapping[str, At] = {"timeout": "result", "reset": "result", "html": "result", "truncate": "asset"}


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On which of the matching submissions a rule falls; every condition given must hold."""

    share: float | None = None
    first: int | None = None
    every: int | None = None
    from_s: float | None = None
    to_s: float | None = None

    def holds(self, nth: int, chance: float, elapsed: float) -> bool:
        """Whether submission `nth` (from 1) is struck, `elapsed` seconds after the script was set."""
        return (
            (self.share is None or chance < self.share)
            and (self.first is None or nth <= self.first)
            and (self.every is None or nth % self.every == 0)
            and (self.from_s is None or elapsed >= self.from_s)
            and (self.to_s is None or elapsed < self.to_s)
        )


class Args(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a fault falls; each field is explained in the module's docstring."""

    at: At | None = None
    times: int | None = None
    retry_after: float | None = None
    keep: float = 0.5
    lie: bool = False
    json: bool = False
    factor: float = 5.0
    seconds: float | None = None
    body_s: float = 0.0
    flagged: bool = False
    status: int = 200
    width: int | None = None
    height: int | None = None
    swap: bool = False
    count: int | None = None
    copies: int = 1
    answer_after_s: float | None = None


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a fault script."""

    do: str
    provider: str = "*"
    account: str = "*"
    model: str = "*"
    when: When = When()
    args: Args = Args()

    def __post_init__(self) -> None:
        """Refuse a fault nobody knows."""
        if self.do not in KINDS and not (self.do.isdigit() and 400 <= int(self.do) <= 599):
            known = ", ".join(sorted(KINDS))
            raise ValueError(f"do: {self.do!r} is no fault; use a status 400..599 or one of {known}")

    def matches(self, provider: str, account: str, model: str) -> bool:
        """Whether the rule speaks of this kind of submission at all."""
        return (
            fnmatchcase(provider, self.provider)
            and fnmatchcase(account, self.account)
            and fnmatchcase(model, self.model)
        )


class Strike:
    """One fault on one order, and how often it may still disturb an answer."""

    def __init__(self, do: str, args: Args) -> None:
        self.do = do
        self.args = args
        self.at: At = args.at or _DEFAULT_AT.get(do, "submit")
        self._left = args.times

    @property
    def status(self) -> int | None:
        """The HTTP status this fault answers with, where it is one."""
        return int(self.do) if self.do.isdigit() else None

    def hits(self, at: At) -> bool:
        """Whether the answer now given at `at` is disturbed; counts one disturbance."""
        if self.at != at or self._left == 0:
            return False
        if self._left is not None:
            self._left -= 1
        return True


NO_FAULT = Strike("none", Args())


class Faults:
    """The script in force."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rules: Sequence[Rule] = ()
        self._seen: list[int] = []
        self._since = 0.0

    def set(self, rules: Sequence[Rule], now: float) -> None:
        """Replace the script; counts and clocks of its rules start here."""
        self._rules = rules
        self._seen = [0] * len(rules)
        self._since = now

    def strike(self, provider: str, account: str, model: str, now: float) -> Strike:
        """The fault that falls on this submission, or `NO_FAULT`."""
        struck = NO_FAULT
        for number, rule in enumerate(self._rules):
            if not rule.matches(provider, account, model):
                continue
            self._seen[number] += 1
            chance = random.Random(f"{self._seed}/{number}/{self._seen[number]}").random()
            if struck is NO_FAULT and rule.when.holds(self._seen[number], chance, now - self._since):
                struck = Strike(rule.do, rule.args)
        return struck
