"""Puts changed configuration files in force while the gateway runs; whatever is wrong with them, the last good go on.

Files are looked at every `POLL_S`: their names, sizes and times, which is cheap and works on every file system. They
are read again, too, when a price that was announced comes into force. A change is read once it has held still for one
more look, in a thread, and again when a file changed meanwhile. What was read is checked as a whole, then handed over
in one step; what is wrong is logged and shown with file, line and column.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.features.policy_history import History
from gateway.revisions import Revision, Shelf, Stamp, load_revision, policy_path, stamp_of
from gateway.settings import Account, Settings
from gateway.yaml_files import BadFile, Fault
from policies.catalog import known_prices

POLL_S = 0.2
"""Seconds between two looks at the files; a look at forty costs half a millisecond, most of it for the thread."""
STILL_S = 0.1
"""Seconds for which changed files must hold still."""
READS = 10
"""Times that files which keep changing are looked at, and then read, before that is said."""
TOLD = 20
"""Faults that are logged one by one."""

FOLLOWED = frozenset({"accounts", "policy", "config"})
"""Settings that a running gateway follows; all others are read when it starts."""
_GIVEN_AT_START = frozenset({"host", "port", "state"})
"""Options of the command line stand above the file, which may say anything about them."""

log = structlog.get_logger("gateway.reloading")


class Condition(Struct, frozen=True, kw_only=True):
    """How the files on disk stand to what is in force."""

    policy: str = ""
    """Of what is in force: name and number of the policy, number of catalogue and account terms."""
    prices: int = 0
    since: datetime | None = None
    """When it came into force."""
    canary: str = ""
    """Name and number of the policy that is tried beside it, while one is."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with the files on disk; the last good ones are in force then."""
    refused_at: datetime | None = None
    restart: tuple[str, ...] = ()
    """Changed settings that a running gateway does not follow."""

    @property
    def word(self) -> str:
        """In a few words, for a health check."""
        if not self.faults:
            return "ok"
        first = self.faults[0]
        place = f"{Path(first.path).name}:{first.line}:{first.column}" if first.line else Path(first.path).name
        return f"refused at {place}; what was good before is in force"


class Reloading:
    """Follows the configuration's files."""

    def __init__(
        self,
        settings: Settings,
        revision: Revision,
        *,
        read: Callable[[], Settings],
        shelf: Shelf,
        adopt: Callable[[Settings, Revision], None],
        clock: Clock,
        history: History | None = None,
    ) -> None:
        """`settings` and `revision` are in force, and came off `shelf`; `read` reads settings anew."""
        self._settings = settings
        self._connected = dict(settings.accounts_on())
        """Accounts as the connections to them were opened; one that is removed and comes back still has its own."""
        self._changes_at = revision.catalog.changes_at
        """When other prices come into force, and everything is read again."""
        self._began_with = read()
        self._read = read
        self._shelf = shelf
        self._adopt = adopt
        self._history = history
        self._revision = revision
        self._clock = clock
        self._now = asyncio.Event()
        self._stamp = shelf.stamp
        self._path = policy_path(settings)
        self.condition = Condition(policy=revision.policy.label, prices=revision.number, since=clock.utc())

    def at_once(self) -> None:
        """Read everything now, changed or not (SIGHUP)."""
        self._now.set()

    async def follow(self) -> None:
        """Follow the files until cancelled."""
        await self._keep_in_history()
        while True:
            asked = await self._asked()
            try:
                if asked or self._prices_change() or await self._changed():
                    await self.reload()
            except Exception:
                log.exception("background_work_failed", work="reloading")

    async def reload(self) -> None:
        """Read the files and put them in force, or say what is wrong with them."""
        began = self._clock.now()
        if self._history is not None:
            await self._history.refresh()
        try:
            settings, revision = await self._read_while_still()
        except BadFile as error:
            self._refuse(error.faults)
            return
        restart = tuple(self._not_followed(settings))
        self._adopt(settings, revision)
        self._connected = {**settings.accounts_on(), **self._connected}
        self._settings, self._path = settings, policy_path(settings)
        self._changes_at = revision.catalog.changes_at
        self._revision = revision
        self.condition = Condition(
            policy=revision.policy.label, prices=revision.number, since=self._clock.utc(), restart=restart
        )
        log.info(
            "configuration_adopted",
            policy=revision.policy.label,
            prices=revision.number,
            seconds=round(self._clock.now() - began, 3),
        )
        if restart:
            log.warning("restart_needed", detail="changed, but only read at start: " + ", ".join(restart))
        await self._keep_in_history()

    async def _keep_in_history(self) -> None:
        """Keep what is in force now; that it cannot be kept changes nothing about it."""
        if self._history is None:
            return
        try:
            await self._history.refresh()
            if (clash := self._history.clash(self._revision)) is not None:  # at a start there is no last good one
                log.warning("policy_number_used_twice", detail=clash.message, reason=clash.hint)
            await self._history.in_force(self._revision)
        except GatewayError as error:
            log.warning("history_not_kept", detail=error.message)

    async def _asked(self) -> bool:
        """Whether somebody asks for a reading before the next look is due."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._now.wait()
        except TimeoutError:
            return False
        self._now.clear()
        return True

    def _prices_change(self) -> bool:
        """Whether a moment has come at which other prices are in force."""
        return self._changes_at is not None and self._changes_at <= self._clock.utc()

    async def _changed(self) -> bool:
        """Whether the files differ from those read last, and hold still, or never do."""
        stamp = await asyncio.to_thread(stamp_of, self._settings)
        if stamp == self._stamp:
            return False
        for _ in range(READS):
            before, stamp = stamp, await self._later_stamp()
            if stamp == before:
                break
        return stamp != self._stamp

    async def _later_stamp(self) -> Stamp:
        await asyncio.sleep(STILL_S)
        return await asyncio.to_thread(stamp_of, self._settings)

    async def _read_while_still(self) -> tuple[Settings, Revision]:
        """What the files say, all of them as they were at one moment; raises `BadFile`."""
        for _ in range(READS):
            before = await asyncio.to_thread(stamp_of, self._settings)
            self._stamp = before
            try:
                loaded = await asyncio.to_thread(self._load)
            except BadFile:
                if await asyncio.to_thread(stamp_of, self._settings) == before:
                    raise
                continue
            if await asyncio.to_thread(stamp_of, self._settings) == before:
                return loaded
        raise BadFile([Fault(path=str(self._settings.config), message="keeps changing while it is read")])

    def _load(self) -> tuple[Settings, Revision]:
        settings = self._following(self._read())
        path = self._path
        if path is not None and settings.policy == self._settings.policy and not path.exists():
            hint = "put it back; only a restart falls back on the shipped policy"
            raise BadFile([Fault(path=str(path), message="the policy in force is gone", hint=hint)])
        revision = load_revision(
            settings, shelf=self._shelf, at=self._clock.utc(), after=known_prices(self._revision.catalog)
        )
        if self._history is not None and (clash := self._history.clash(revision)) is not None:
            raise BadFile([clash])
        return settings, revision

    def _following(self, fresh: Settings) -> Settings:
        """The settings in force, with what a running gateway follows of the fresh ones."""
        accounts = {
            name: self._connected[name] if self._speaks_otherwise(name, account) else account
            for name, account in fresh.accounts.items()
        }
        return self._settings.model_copy(update={"accounts": accounts, "policy": fresh.policy})

    def _speaks_otherwise(self, name: str, account: Account) -> bool:
        """Whether an account is reached in another way than the connection that is open; a new one gets its own."""
        before = self._connected.get(name)
        return before is not None and (before.kind, before.adapter_settings()) != (
            account.kind,
            account.adapter_settings(),
        )

    def _not_followed(self, settings: Settings) -> list[str]:
        """Names of settings that differ from those in force and take a restart."""
        fresh = self._read()
        names = [
            name
            for name in Settings.model_fields
            if name not in FOLLOWED | _GIVEN_AT_START and getattr(fresh, name) != getattr(self._began_with, name)
        ]
        return names + [
            f"accounts.{name}" for name in fresh.accounts if fresh.accounts[name] != settings.accounts[name]
        ]

    def _refuse(self, faults: Sequence[Fault]) -> None:
        self.condition = replace(self.condition, faults=tuple(faults), refused_at=self._clock.utc())
        for fault in faults[:TOLD]:
            where = f"{fault.path}:{fault.line}:{fault.column}" if fault.line else fault.path
            log.error("configuration_refused", where=where, detail=fault.message, reason=fault.hint)
        log.error("last_good_configuration_kept", detail=f"{len(faults)} faults; nothing was changed")
