"""`pixelgate shadow vote` and `votes`: people say which picture of a pair is better, blind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbelow
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.assets import FolderBlobs, Unfit, blob_key
from gateway.cli.shadow_shared import experiment_of
from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, open_records, print_json, run_async, say, write_file
from gateway.cli.vote_page import LONGEST_NAME, Ballot, Shown, Votes, champion_is_left, page
from gateway.features.judging import plain
from gateway.revisions import load_revision
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.shadows import VoteRow, party
from policies.experiments.definition import Experiment
from policies.experiments.pairs import Pair, Side
from policies.experiments.sampling import rolled
from policies.experiments.verdicts import pairs_of

SIDE_PX = 768
"""Pixels of the longer side of what people are shown."""
_decode = msgspec.json.Decoder(Votes).decode


def vote(
    name: str,
    /,
    *,
    output: Path,
    pairs: Annotated[int, Parameter(validator=Number(gte=1, lte=500))] = 50,
    voter: str = "",
    prompts: bool = False,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0, lt=2**31))] = None,
    where: Where = HERE,
) -> None:
    """Write a page that shows pairs of an experiment side by side, in an order and on sides that tell nothing.

    The page needs nothing beside it, and sends nothing: whoever votes saves a file, which `shadow votes` takes in.

    Parameters
    ----------
    name
        The experiment.
    output
        The page; 50 pairs take about 10 MB.
    pairs
        How many are shown: those that fewest people voted on, by chance among these.
    voter
        Who votes, in small letters or large: their name stands in the page, and pairs they voted on are left out.
    prompts
        Show what was asked for, where that is still kept: the page then holds it.
    seed
        What order and sides follow from; another one each time when left out.
    """
    settings = where.settings()
    experiment = experiment_of(load_revision(settings), name)
    if len(voter.strip()) > LONGEST_NAME:
        raise Stop(f"--voter: {len(voter.strip())} characters; a name has at most {LONGEST_NAME}")
    drawn = randbelow(2**31) if seed is None else seed
    ballot = run_async(_ballot(settings, experiment, drawn, most=pairs, voter=voter.strip(), prompts=prompts))
    if not ballot.pairs:
        raise Stop(f"{name} has no pairs to vote on: they must count in its report, with both pictures kept")
    write_file(output, page(ballot, voter.strip()))
    say(f"wrote {output}: {len(ballot.pairs)} pairs; then `{COMMAND} shadow votes {name} FILE`")


def votes(name: str, /, *files: Path, json: Json = False, where: Where = HERE) -> int:
    """Take in the files that pages have saved; twice is harmless. Exit code 1: some votes are on pairs not known here.

    Parameters
    ----------
    name
        The experiment.
    files
        What people have saved.
    """
    settings = where.settings()
    experiment_of(load_revision(settings), name)
    if not files:
        raise Stop(f"name the files that people have saved: `{COMMAND} shadow votes {name} votes-{name}-ann.json`")
    read = [(file, _read(file, name)) for file in files]
    unknown = run_async(_kept(settings, name, [found for _, found in read]))
    given = [choice.pair for _, found in read for choice in found.votes]
    strangers = [f"{file}: {each.pair}" for file, found in read for each in found.votes if each.pair in unknown.pairs]
    if json:
        told = {"votes": len(given), "new": unknown.fresh, "unknown": strangers}
        print_json({"experiment": name, **told})
    else:
        print(f"{len(given)} votes, {unknown.fresh} of them new")
        for stranger in strangers:
            print(f"no such pair here: {stranger}")
    return 1 if strangers else 0


async def _ballot(
    settings: Settings, experiment: Experiment, seed: int, *, most: int, voter: str, prompts: bool
) -> Ballot:
    db, blobs, name = open_records(settings), FolderBlobs(settings.assets_folder), experiment.name
    shown: list[Shown] = []
    try:
        found = await db.shadow_pairs(name)
        counted = [pair for each in experiment.challengers for pair in pairs_of(experiment, each, found)]
        for pair in _in_order(counted, await db.votes(name), seed, voter):
            ours, theirs = [await _picture(db, blobs, name, side) for side in (pair.champion, pair.challenger_side)]
            if ours is None or theirs is None:
                continue
            left, right = (ours, theirs) if champion_is_left(seed, pair.id) else (theirs, ours)
            recipe = await db.recipe(pair.call_id) if prompts else None
            prompt = None if recipe is None else str(recipe.request.get("prompt") or "") or None
            shown.append(Shown(id=pair.id, left=left, right=right, prompt=prompt))
            if len(shown) == most:
                break
    finally:
        await db.aclose()
    return Ballot(experiment=name, seed=seed, pairs=sorted(shown, key=lambda each: rolled(each.id, f"order {seed}")))


def _in_order(found: Sequence[Pair], given: Sequence[VoteRow], seed: int, voter: str) -> list[Pair]:
    """Pairs that fewest people voted on come first, and by chance among these; without what somebody voted on."""
    votes_on = Counter(each.pair for each in given)
    theirs = {each.pair for each in given if each.voter.casefold() == voter.casefold()}
    whole = [
        pair
        for pair in found
        if pair.champion.delivered and pair.challenger_side.delivered
        and pair.champion.asset and pair.challenger_side.asset and pair.id not in theirs
    ]  # fmt: skip
    return sorted(whole, key=lambda pair: (votes_on[pair.id], rolled(pair.id, f"choice {seed}")))


async def _picture(db: Database, blobs: FolderBlobs, name: str, side: Side) -> str | None:
    asset = await db.asset(side.asset or "", party(name))
    data = None if asset is None else await blobs.get(blob_key(asset.path))
    try:
        return None if data is None else plain(data, SIDE_PX)
    except Unfit:
        return None


class _Kept(msgspec.Struct, frozen=True):
    fresh: int
    pairs: frozenset[str]
    """That are not known here."""


def _read(file: Path, name: str) -> Votes:
    try:
        found = _decode(file.read_bytes())
    except OSError as error:
        raise Stop(f"{file}: cannot be read ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise Stop(f"{file}: this is no file that a page of `shadow vote` saves: {error}") from error
    if found.experiment != name:
        raise Stop(f"{file}: these are votes on {found.experiment!r}, not on {name!r}")
    return found


class Spelt:
    """Names of voters as they were first spelt: Ann and ann are one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._first: dict[str, str] = {}
        for name in names:
            self.first(name)

    def first(self, name: str) -> str:
        """How this name was first spelt."""
        return self._first.setdefault(name.casefold(), name)


async def _kept(settings: Settings, name: str, read: Sequence[Votes]) -> _Kept:
    db, now = open_records(settings), datetime.now(UTC)
    try:
        known = {pair.id for pair in await db.shadow_pairs(name)}
        spelt = Spelt(each.voter for each in await db.votes(name))
        rows = [
            VoteRow(
                experiment=name,
                pair=each.pair,
                voter=spelt.first(found.voter.strip()),
                choice=_choice(found.seed, each.pair, each.choice),
                at=each.at.astimezone(UTC),
                imported=now,
            )
            for found in read
            for each in found.votes
        ]
        fresh = await db.keep_votes([row for row in rows if row.pair in known])
    finally:
        await db.aclose()
    return _Kept(fresh, frozenset(row.pair for row in rows) - known)


def _choice(seed: int, pair: str, choice: str) -> int:
    """1 for the challenger's picture, -1 for the champion's, 0 for neither."""
    if choice == "tie":
        return 0
    return -1 if (choice == "left") == champion_is_left(seed, pair) else 1
