"""`python -m bench.ledger`: how long a month of a million ledger rows takes to audit, to report, and to start on.

The rows are what the gateway would have written: orders of a few models and sizes by twenty keys of five teams, most
delivered, some failed, some overrun, some promoted, prompts that repeat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from bench.report import Figure, conclude
from bench.restarts import restarts
from gateway.money.periods import period_of, zone_of
from gateway.money.reports import report
from gateway.revisions import load_revision
from gateway.settings import load_settings
from gateway.storage.database import open_database
from gateway.storage.database.sqlite.file import connect, open_file
from gateway.storage.database.sqlite.values import micros
from gateway.storage.rows import Outcome
from providers.contract import Ticket

T = TypeVar("T")
Row: TypeAlias = "tuple[object, ...]"

FIRST = datetime(2026, 10, 1, tzinfo=UTC)
LAST = FIRST + timedelta(days=31)
WEEK = (FIRST + timedelta(days=13)).date()
UTC_ZONE = zone_of("UTC")
OFFERS = {
    "fal:flux-schnell": 3_000_000,
    "together:flux-schnell": 2_831_155,
    "fal:flux-dev": 25_000_000,
    "fal:flux-2-pro": 30_000_000,
}
SIZES = ((1024, 1024), (1024, 768), (768, 1024), (512, 512), (1088, 1024), (1536, 1024))
ENTRIES_PER_ORDER = 4.3
BATCH = 20_000


class Options(Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    rows: int
    seed: int
    json: Path | None
    keep: Path | None


class Order(Struct, frozen=True, kw_only=True):
    """One order of the month."""

    digits: str
    at: int
    account: str
    offer: str
    team: str
    key: str
    size: tuple[int, int]
    hold: int
    cost: int
    charge: int
    parent: str | None
    prompt: str


def orders(rows: int, seed: int) -> Iterator[Order]:
    """Orders over the month whose entries come to about `rows`."""
    draw = random.Random(seed)
    count = round(rows / ENTRIES_PER_ORDER)
    step = (LAST - FIRST) // count
    before = ""
    for number in range(count):
        at = micros(FIRST + step * number)
        offer = draw.choices(tuple(OFFERS), (6, 6, 2, 1))[0]
        digits = f"{at // 1000:012x}{draw.getrandbits(88):022x}"
        price, luck = OFFERS[offer], draw.random()
        key = draw.randrange(20)
        promoted = offer.endswith("pro") and bool(before) and draw.random() < 0.7
        yield Order(
            digits=digits,
            at=at,
            account=offer.partition(":")[0],
            offer=offer,
            team=f"team-{key % 5}",
            key=f"key_{key:02}",
            size=draw.choice(SIZES),
            hold=price + (1_000 if luck > 0.7 else 0),
            cost=0 if luck < 0.03 else price + (5_000 if luck > 0.99 else 0),
            charge=0 if luck < 0.04 else price,
            parent=f"img_{before}0" if promoted else None,
            prompt=f"a lighthouse in a storm, number {draw.randrange(count // 2)}, " + "oil on canvas, " * 8,
        )
        before = digits


def entries(order: Order) -> Iterator[Row]:
    """What the books say of an order."""
    attempt = f"att_{order.digits}"
    for book, party in (("cost", order.account), ("charge", order.team)):
        yield order.at, book, party, "hold", order.hold, attempt, ""
    over = order.at + 2_000_000
    for book, party, posted in (("cost", order.account, order.cost), ("charge", order.team, order.charge)):
        if not order.cost:
            yield over, book, party, "release", order.hold, attempt, ""
            continue
        yield over, book, party, "settle", min(posted, order.hold), attempt, ""
        if posted < order.hold:
            yield over, book, party, "release", order.hold - posted, attempt, ""
        elif posted > order.hold:
            yield over, book, party, "settle", posted - order.hold, attempt, "overrun"


def build(path: Path, options: Options) -> int:
    """Write the month; answers how many ledger entries there are."""
    open_file(path, create=True)
    connection = connect(path, "process")
    written: Counter[tuple[str, str]] = Counter()
    batch: list[Order] = []
    for order in orders(options.rows, options.seed):
        batch.append(order)
        written["cost", order.account] += order.cost
        written["charge", order.team] += order.charge
        written["key", order.key] += order.charge
        if len(batch) == BATCH:
            write(connection, batch)
            batch.clear()
    write(connection, batch)
    connection.executemany(
        "INSERT INTO balances (book, party, held, posted) VALUES (?,?,0,?)",
        [(book, party, posted) for (book, party), posted in written.items()],
    )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (count,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
    connection.close()
    return int(count)


def write(connection: sqlite3.Connection, batch: Sequence[Order]) -> None:
    """Write some orders with all that belongs to them, in one transaction."""
    connection.execute("BEGIN")
    insert(connection, "attempts", map(attempt, batch))
    columns = "at, book, party, kind, amount, attempt_id, note"
    connection.executemany(
        f"INSERT INTO entries ({columns}) VALUES (?,?,?,?,?,?,?)",  # noqa: S608 - constants only
        [entry for order in batch for entry in entries(order)],
    )
    insert(connection, "recipes", (recipe(order) for order in batch if order.charge))
    insert(connection, "assets", (asset(order) for order in batch if order.charge))
    connection.execute("COMMIT")


def insert(connection: sqlite3.Connection, table: str, rows: Iterator[dict[str, object]]) -> None:
    """Insert rows given by column."""
    found = list(rows)
    if not found:
        return
    columns = ", ".join(found[0])
    marks = ",".join("?" * len(found[0]))
    connection.executemany(
        f"INSERT INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608 - constants only
        [tuple(row.values()) for row in found],
    )


def attempt(order: Order) -> dict[str, object]:
    """The order's row of attempts."""
    failed = not order.charge
    return {
        "id": f"att_{order.digits}",
        "call_id": f"call_{order.digits}",
        "part": 0,
        "team": order.team,
        "key_id": order.key,
        "account": order.account,
        "offer_id": order.offer,
        "endpoint": f"endpoints/{order.offer.partition(':')[2]}",
        "state": "settled" if order.cost else "released",
        "hold_cost": order.hold,
        "hold_charge": order.hold,
        "cost": order.cost,
        "charge": order.charge,
        "width": order.size[0],
        "height": order.size[1],
        "count": 1,
        "owner": "own_1",
        "started": order.at,
        "ended": order.at + 2_000_000,
        "ticket": msgspec.json.encode(Ticket(f"req-{order.digits}")),
        "outcome": msgspec.json.encode(
            Outcome(error="timed_out" if failed else None, delivered=0 if failed else 1, latency_s=2.0, run_s=1.6)
        ),
        "prices": 1,
        "policy": "default@1",
        "reservation": 0,
    }


def recipe(order: Order) -> dict[str, object]:
    """What was asked for."""
    wish = {
        "operation": "generate",
        "prompt": order.prompt,
        "width": order.size[0],
        "height": order.size[1],
        "count": 1,
        "seed": None,
        "model": "auto",
        "intent": "preview",
        "tags": {"campaign": f"spring-{order.key[-1]}"},
    }
    return {
        "call_id": f"call_{order.digits}",
        "team": order.team,
        "request": json.dumps(wish).encode(),
        "created": order.at,
    }


def asset(order: Order) -> dict[str, object]:
    """The picture that was kept."""
    return {
        "id": f"img_{order.digits}0",
        "call_id": f"call_{order.digits}",
        "attempt_id": f"att_{order.digits}",
        "team": order.team,
        "position": 0,
        "path": f"folder/img_{order.digits}0.png",
        "media_type": "image/png",
        "width": order.size[0],
        "height": order.size[1],
        "bytes": 1_500_000,
        "sha256": "0" * 64,
        "model": order.offer.partition(":")[2],
        "offer_id": order.offer,
        "tier": "export" if order.offer.endswith("pro") else "preview",
        "intent": "export" if order.parent else "preview",
        "cost": order.charge,
        "parent_id": order.parent,
        "created": order.at,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench ledger", description="Do reports and audits keep up with a month?")
    parser.add_argument("--rows", type=int, default=1_000_000, help="ledger entries, about (default 1000000)")
    parser.add_argument("--seed", type=int, default=1, help="draws the orders (default 1)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--keep", type=Path, help="leave the database in this (new) folder")
    options = Options(**vars(parser.parse_args(arguments)))
    with tempfile.TemporaryDirectory(prefix="pixelgate-bench-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "pixelgate.db"
        began = time.perf_counter()
        written = build(path, options)
        building = time.perf_counter() - began
        figures, faults = asyncio.run(measure(f"sqlite:///{path.absolute()}"))
        full, bare, amiss = asyncio.run(restarts(path.absolute()))
    figures += [
        Figure(name="restart_s", value=full, unit="s", aim=3.0),
        Figure(name="restart_over_empty", value=full / bare, unit="x", must=1.5),
    ]
    faults += amiss
    figures = [Figure(name="entries", value=written, unit="rows"), *figures]
    figures.append(Figure(name="building_s", value=building, unit="s"))
    return conclude(
        figures, context={"rows": options.rows, "seed": options.seed}, faults=faults, json_file=options.json
    )


async def measure(url: str) -> tuple[list[Figure], list[str]]:
    """Time each question on the same file; whoever else uses the machine shows in the seconds, hardly in the CPU."""
    catalog = load_revision(load_settings(None, flags={}), every_account=True).catalog
    db = open_database(url, "process", create=False)
    try:
        audited, *audit = await clocked(db.examine())
        weekly, *week = await clocked(report(db, catalog, period_of("weekly", WEEK, UTC_ZONE, LAST)))
        monthly, *month = await clocked(report(db, catalog, period_of("monthly", FIRST.date(), UTC_ZONE, LAST)))
        balances = await db.balances()
    finally:
        await db.aclose()
    faults = list(audited.faults)
    posted = {book: sum(row.posted for row in balances if row.book == book) for book in ("cost", "charge")}
    if (monthly.total.cost, monthly.total.charge) != (posted["cost"], posted["charge"]):
        faults.append(f"the month's report says {monthly.total}, the balances {posted}")
    if not weekly.total.orders:
        faults.append("the week's report is empty")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        Figure(name="audit_cpu_s", value=audit[1], unit="s", must=10.0),
        Figure(name="audit_s", value=audit[0], unit="s", aim=10.0),
        Figure(name="weekly_cpu_s", value=week[1], unit="s", must=3.0),
        Figure(name="weekly_s", value=week[0], unit="s", aim=3.0),
        Figure(name="monthly_cpu_s", value=month[1], unit="s"),
        Figure(name="monthly_s", value=month[0], unit="s"),
        Figure(name="peak_mb", value=peak, unit="MB"),
    ], faults


async def clocked(work: Awaitable[T]) -> tuple[T, float, float]:
    """What it answered, in how many seconds, and how many of them on a processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = await work
    return found, time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
