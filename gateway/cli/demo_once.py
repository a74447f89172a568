"""The main job, shown and checked: a preview, its export, why and for how much, and whether the books agree."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from gateway.app import App
from gateway.cli.shell import Stop, dollars
from gateway.cli.show import candidate_table
from gateway.http.decisions import Explanation, explain
from gateway.ids import sibling
from gateway.requests.journal import noted
from policies.tariffs import MachineSecond
from policies.types import Tier

if TYPE_CHECKING:
    from providers.sandbox import Sandbox

PROMPT = "a lighthouse on a cliff at dawn, waves below, warm light in the window"
OUTPUT = Path("demo-output")
_SHOWN_CANDIDATES = 4


class Drawn(Struct, frozen=True, kw_only=True):
    """A line of the caller: one picture, as the official client got it."""

    what: str
    path: str
    seconds: float
    decision: str
    offer: str
    provider: str
    model: str
    nano_usd: int


class Customer:
    """The caller's process; invited early, because it takes a second to come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    def invite(cls) -> Customer:
        """Start the caller; it waits to be told where to go."""
        script = Path(__file__).with_name("demo_caller.py")
        # -P: the caller lies among our modules, and must not take them for those of the standard library.
        command = [sys.executable, "-P", str(script)]
        return cls(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def dismiss(self) -> None:
        """End the caller, if it has not ended by itself."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    async def shop(self, app: App, sandbox: Sandbox, key: str) -> bool:
        """Let the caller draw, show each picture, and say whether everything was as promised."""
        told = {"base_url": f"{app.settings.public_base}/v1", "key": key, "prompt": PROMPT, "output": str(OUTPUT)}
        pictures = await asyncio.to_thread(_converse, self._process, json.dumps(told))
        faults = []
        for picture in pictures:
            story = await _story(app, picture)
            print(_shown(picture, story), flush=True)
            faults += _faults(picture, story, app)
        faults += await _books(app, sandbox)
        print("\n".join(faults) or "all as promised", flush=True)
        return not faults


def _converse(process: subprocess.Popen[str], told: str) -> list[Drawn]:
    out, _ = process.communicate(f"{told}\n")
    pictures = [msgspec.json.decode(line, type=Drawn) for line in out.splitlines()]
    if process.returncode or len(pictures) != 2:
        raise Stop("the openai client did not get its pictures; see above (is `openai` installed?)", code=1)
    return pictures


async def _story(app: App, picture: Drawn) -> Explanation:
    call_id = sibling(picture.decision, "call")
    rows = await app.db.decisions(call_id)
    notes = [noted(row.body) for row in rows]
    return explain(notes, await app.db.attempts(call_id))


def _shown(picture: Drawn, story: Explanation) -> str:
    width, height = _size(Path(picture.path))
    shown = story.candidates[:_SHOWN_CANDIDATES]
    more = len(story.candidates) - len(shown)
    what = f"{picture.what}: {picture.model} from {picture.provider}   {dollars(picture.nano_usd)}"
    where = f"{picture.seconds:.2f} s   {picture.path} ({width}x{height})"
    why = f"why: least in all of {len(story.candidates)} offers that may serve ({len(story.rejections)} may not)"
    table = candidate_table(shown) + (f"\n  and {more} more" if more else "")
    return f"{what}   {where}\n{why}, in dollars:\n{table}\n"


def _faults(picture: Drawn, story: Explanation, app: App) -> list[str]:
    """What is not as the main job promises: Schnell at the cheapest offer, then a Pro model."""
    faults = []
    if story.chosen != picture.offer:
        faults.append(f"{picture.what}: {picture.offer} delivered, but {story.chosen} was chosen")
    cheapest = min(story.candidates, key=lambda candidate: candidate.quote_nano_usd)
    if picture.what == "preview" and (picture.model != "flux-schnell" or picture.offer != cheapest.offer):
        faults.append(f"preview: not Schnell at the cheapest feasible offer ({cheapest.offer})")
    by_time = isinstance(app.revision.catalog.offers[cheapest.offer].tariff, MachineSecond)
    if picture.what == "preview" and picture.nano_usd != cheapest.quote_nano_usd and not by_time:
        faults.append(f"preview: {dollars(picture.nano_usd)} instead of the {dollars(cheapest.quote_nano_usd)} quoted")
    if picture.what == "export" and app.revision.catalog.models[picture.model].tier < Tier.EXPORT:
        faults.append(f"export: {picture.model} is not of tier export")
    return faults


async def _books(app: App, sandbox: Sandbox) -> list[str]:
    """Our ledger beside the sandbox's own invoice, account by account."""
    ours = {row.party: row.posted for row in await app.db.balances() if row.book == "cost" and row.posted}
    by_seller = msgspec.convert(sandbox.invoice()["by_account"], dict[str, dict[str, int]])
    theirs = {account: amount for accounts in by_seller.values() for account, amount in accounts.items()}
    faults = list(await app.db.audit())
    for account in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(account, 0), theirs.get(account, 0)
        if here == there:
            print(f"books: {account}   ledger {dollars(here)} = {dollars(there)} sandbox invoice")
        else:
            faults.append(f"books: {account}   ledger {dollars(here)}, but the sandbox invoices {dollars(there)}")
    return faults


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture that really decodes."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        return picture.size
