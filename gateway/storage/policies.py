"""What is kept of policies: every revision with its author, and what was done with each."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct

Source: TypeAlias = Literal["saved", "applied", "rolled back", "canary", "promoted"]
"""How a revision came here: found in the file, or by a command."""


class PolicyRevision(Struct, frozen=True, kw_only=True):
    """One policy file as it stood at a moment."""

    seq: int = 0
    """REV of the commands, 1, 2, 3 ...; 0 until it is kept."""
    at: datetime
    policy: str
    label: str
    """Name and number as the file says: "default@7"."""
    content: bytes
    digest: str
    """SHA-256 of the content, in hex."""
    meaning: str
    """The same of what it says, without remarks and spacing."""
    author: str
    source: Source
    message: str = ""
    parent: int | None = None
    """The revision of this policy before it."""


class PolicyEvent(Struct, frozen=True, kw_only=True):
    """What somebody, or a gateway by itself, did with a revision."""

    at: datetime
    actor: str
    action: str
    """in force, or what became of a canary."""
    revision: int
    detail: str = ""


CanaryState: TypeAlias = Literal["running", "passed", "promoted", "rolled back", "aborted", "superseded"]
"""passed: nothing was crossed, but it could not be put in force. superseded: the policy in force changed meanwhile."""


class CanaryRow(Struct, frozen=True, kw_only=True):
    """A policy that is tried beside the one in force."""

    id: int = 0
    revision: int
    base: int
    """The revision that was in force when it began."""
    share: float
    """Of keys and end users."""
    teams: tuple[str, ...] = ()
    """Whose calls it serves, all of them; nobody's in particular when empty."""
    started: datetime
    author: str
    state: CanaryState = "running"
    ended: datetime | None = None
    reason: str = ""
    report: bytes | None = None
    """JSON of `policies.experiments.guardrails.Report`."""
