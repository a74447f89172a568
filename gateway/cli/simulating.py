"""What `policy simulate`, `replay` and `diff` share: what is read, what is assumed, and how far it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli.shell import Stop
from gateway.revisions import PolicyText, Revision, load_revision, policy_names
from gateway.settings import Settings
from policies.offline.catalog_world import Assumptions, Trouble

_TROUBLE = re.compile(r"(?P<account>[^:]+):(?P<what>[a-z]+)(?P<value>\d+(\.\d+)?)?:(?P<from>\d+)-(?P<to>\d+)")
_WORDS = {"refuses": False, "hangs": False, "slow": True, "slots": True}
"""What may happen to an account, and whether a number belongs to it."""


@Parameter(name="*")
@dataclass(frozen=True)
class World:
    """What is assumed of sellers."""

    limit: tuple[str, ...] = ()
    """ACCOUNT=SLOTS instead of what gateway.yaml says, repeatable; 0 sells nothing."""
    trouble: tuple[str, ...] = ()
    """ACCOUNT:WHAT:FROM-TO in seconds, repeatable: refuses, hangs, slow3 (times as long), slots4 (left); or `all`."""
    errors: float = Assumptions().errors
    """Share of orders that fail."""
    slow: float = Assumptions().slow
    """Share of orders that take 1.5 to 8 times as long."""
    seed: int = 1
    """Draws are the same for the same seed."""

    def assumed(self) -> Assumptions:
        """The shares, checked."""
        for option, share in (("--errors", self.errors), ("--slow", self.slow)):
            if not 0 <= share < 1:
                raise Stop(f"{option} {share:g}: a share from 0 to 1, such as 0.01")
        return Assumptions(errors=self.errors, slow=self.slow)

    def limits(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Slots by account."""
        found = {}
        for text in self.limit:
            name, _, slots = text.partition("=")
            if not slots.isdecimal():
                raise Stop(f"--limit {text}: write ACCOUNT=SLOTS, such as fal=20")
            found[_account("--limit", name, accounts)] = int(slots)
        return found

    def troubles(self, accounts: Sequence[str]) -> list[Trouble]:
        """What happens to accounts."""
        return [_trouble(text, accounts) for text in self.trouble]


def _account(option: str, name: str, accounts: Sequence[str]) -> str:
    if name not in accounts:
        raise Stop(f"{option} {name}: there is no account of that name; there are: {', '.join(accounts)}")
    return name


def _trouble(text: str, accounts: Sequence[str]) -> Trouble:
    found = _TROUBLE.fullmatch(text)
    if found is None or found["what"] not in _WORDS or _WORDS[found["what"]] != bool(found["value"]):
        raise Stop(
            f"--trouble {text}: write ACCOUNT:WHAT:FROM-TO in seconds, where WHAT is refuses, hangs, slow3 or slots4; "
            "such as fal:refuses:600-900"
        )
    if int(found["to"]) <= int(found["from"]):
        raise Stop(f"--trouble {text}: it ends before it begins")
    name = found["account"]
    return Trouble(
        account=name if name == "all" else _account("--trouble", name, accounts),
        what=found["what"],  # type: ignore[arg-type]  # one of _WORDS
        begins=float(found["from"]),
        ends=float(found["to"]),
        value=float(found["value"] or 0),
    )


def revision_of(settings: Settings, policy: str | None, catalog: Path | None) -> Revision:
    """The configuration with another policy (a file, or a name in `policies/`) or another catalogue."""
    if catalog is not None and not any(catalog.glob("*.yaml")):
        raise Stop(f"{catalog}: no folder with a catalogue; it holds one <model>.yaml per model")
    text = None
    if policy is not None:
        path = Path(policy)
        if path.is_file():
            text = PolicyText(str(path), path.read_bytes())
        elif policy in (names := policy_names(settings)):
            settings = settings.model_copy(update={"policy": policy})
        else:
            known = ", ".join(names)
            raise Stop(f"{policy}: neither a policy file nor the name of a policy; there are: {known}")
    return load_revision(settings, every_account=True, policy=text, catalog_dir=catalog)


def accounts_of(revision: Revision) -> list[str]:
    """The accounts that sell anything."""
    sell = {offer.account for offer in revision.catalog.offers.values()}
    return [name for name in revision.accounts if name in sell]


@contextmanager
def progress_bar(about: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while the block runs, where that is a terminal; it is told how far the work is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(about, total=total)
        yield lambda done: bar.update(task, completed=done)
