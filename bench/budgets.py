"""`python -m bench.budgets`: thousands of orders at once against budgets that fit only some of them.

Every call is sent at the same moment, by callers who come back with what was turned away, cut off or failed as soon as
they are told to, until money is all that refuses them. Sellers fail, refuse and hang meanwhile, and the gateway is
killed. Then the entries are played back one by one, in plain SQL, and every budget is held against what was set aside
or spent in its name at each of these moments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import aiohttp
import msgspec
from msgspec import Struct

from bench.gateway_config import Home, copy_catalog, write_home
from bench.loopback import HOST, wait_for_200
from bench.money import judge, stage
from bench.money.options import add_options, work_folder
from bench.money.traffic import UNSAFE
from bench.processes import Child, free_port, raise_file_limit
from bench.report import Figure, conclude

TEAMS = 8
WAVES = 12
"""How often those whom money refused ask again at most, whether something was given back meanwhile."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
"""Between two tries of a caller, where it was not told to wait longer; doubled from one try to the next."""
PATIENCE_S = 600.0
"""Seconds a caller waits; so do the calls: what is measured is money, not speed."""
SETTLE_S = 120.0
SELLERS: Mapping[str, Mapping[str, object]] = {
    "fal": {"concurrency": 20_000},
    "together": {"rate": 1e6, "burst": 20_000},
}
"""Limits that nobody reaches: here nothing but money may run out."""
FAULTS = (
    {"provider": "*", "when": {"share": 0.05}, "do": "500"},
    {"provider": "*", "when": {"share": 0.03}, "do": "reset", "args": {"at": "result"}},
    {"provider": "*", "when": {"share": 0.03}, "do": "black"},
    {"provider": "*", "when": {"share": 0.03}, "do": "refuse"},
)
PRODUCTS: Sequence[Mapping[str, object]] = (
    {"model": "flux-schnell", "size": "512x512"},
    {"model": "flux-schnell", "size": "1024x1024", "n": 2},
    {"model": "flux-2-dev", "size": "512x512"},
)

Kind = Literal["team", "key", "account"]


class Options(Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    calls: int
    kills: int
    seed: int
    time_scale: float
    json: Path | None
    keep: Path | None


class Limit(Struct, frozen=True):
    """A budget as it was set; dollars in nano-dollars."""

    kind: Kind
    name: str
    amount: int


class Wish(Struct):
    """One call, and what became of it so far."""

    number: int
    team: str
    body: Mapping[str, object]
    end: str = ""
    """`200`, or the status and code of the last refusal; empty while nobody answered."""
    answers: int = 0

    @property
    def again(self) -> bool:
        """Whether its caller comes back with it: not with a picture, and not with what everybody refuses."""
        return self.end not in ("200", "400 content_policy_violation")

    @property
    def refused(self) -> bool:
        """Whether it was refused for want of money."""
        return self.end == "429 insufficient_quota"


def plan(options: Options) -> list[Wish]:
    """The calls: the same for the same seed."""
    draw = random.Random(options.seed)
    wishes = []
    for number in range(options.calls):
        unsafe = f", {UNSAFE}" if draw.random() < 0.02 else ""
        body: dict[str, object] = {
            **draw.choice(PRODUCTS),
            "prompt": f"a lighthouse, number {number}{unsafe}",
            "deadline_ms": 600_000,
        }
        wishes.append(Wish(number, f"team{draw.randrange(TEAMS)}", body))
    return wishes


class Gateway:
    """The gateway: one configuration and state, one process after another."""

    def __init__(self, home: Home, port: int, log: Path) -> None:
        self.home, self.port, self._log = home, port, log
        self.kills = 0
        self._child: Child | None = None

    def start(self) -> None:
        """Start a process, and wait until it is ready: thousands may be at its door before it is."""
        command = self.home.command("serve", "--host", HOST, "--port", str(self.port))
        self._child = Child(command, log=self._log, core=None, env=self.home.env)
        wait_for_200(self._child, self.port, "/health/ready", within_s=PATIENCE_S)

    def stop(self, *, kill: bool = False) -> None:
        """Ask it to leave, or kill it."""
        if self._child is not None and kill:
            self._child.kill()
            self.kills += 1
        elif self._child is not None:
            self._child.stop(within_s=20)


@contextmanager
def gateway(folder: Path, sandbox_port: int, pace: float) -> Iterator[Gateway]:
    """A gateway with the shipped catalogue, whose calls wait as long as it takes."""
    url = f"http://{HOST}:{sandbox_port}"
    accounts = {
        name: {"kind": name, "key_env": f"BENCH_{name.upper()}_KEY", "base_url": f"{url}/{name}", **limits}
        for name, limits in SELLERS.items()
    }
    settings = {
        "accounts": accounts,
        "database": {"durability": "process"},
        "orders": {"timeout": "60s", "least_patience": "60s", "linger": "8s", "drain": "5s"},
        "recovery": {"every": "1s", "stale_after": "3s", "reconcile": "2s", "unknown_after": "6s"},
    }
    env = {f"BENCH_{name.upper()}_KEY": f"sandbox-{name}" for name in SELLERS}
    home = write_home(folder / "gateway", settings=settings, env=env)
    copy_catalog(home, pace=pace)
    served = Gateway(home, free_port(), folder / "gateway.log")
    try:
        yield served
    finally:
        served.stop()


def _price(home: Home, product: Mapping[str, object]) -> int:
    """Nano-dollars of a call at the cheapest seller."""
    words = [word for name, value in product.items() for word in (f"--{name}", str(value))]
    done = home.run("quote", *words, "--json")
    return min(msgspec.json.decode(done.stdout, type=Quotes).offers, key=lambda offer: offer.nano_usd).nano_usd


class Quoted(Struct):
    """As much of an offer as is read."""

    nano_usd: int


class Quotes(Struct):
    """As much of `quote --json` as is read."""

    offers: list[Quoted]


def set_budgets(home: Home, wishes: Sequence[Wish]) -> tuple[Mapping[str, str], list[Limit]]:
    """Keys of the teams, and budgets that fit a part of what each asks for; one seller may sell less than it could.

    Half of the teams are limited by a window, half by their key.
    """
    prices = {str(product): _price(home, product) for product in PRODUCTS}
    demand: Counter[str] = Counter()
    for wish in wishes:
        demand[wish.team] += prices[str(_product(wish.body))]
    keys, limits = {}, []
    for number, team in enumerate(sorted(demand)):
        amount = int(demand[team] * (0.3 + 0.05 * number))
        by_key = ("--budget", _dollars(amount)) if number % 2 else ()
        made = _json(home, "keys", "create", "--team", team, *by_key)
        keys[team] = str(made["key"])
        if by_key:
            limits.append(Limit("key", str(made["id"]), amount))
        else:
            _json(home, "budgets", "set", _dollars(amount), "--team", team, "--per", "month")
            limits.append(Limit("team", team, amount))
    half = sum(limit.amount for limit in limits) // 2
    _json(home, "budgets", "set", _dollars(half), "--account", "together", "--per", "day")
    return keys, [*limits, Limit("account", "together", half)]


def _product(body: Mapping[str, object]) -> Mapping[str, object]:
    return {name: body[name] for name in ("model", "size", "n") if name in body}


def _dollars(nano: int) -> str:
    return f"${nano // 10**9}.{nano % 10**9:09d}"


def _json(home: Home, *words: str) -> Mapping[str, object]:
    done = home.run(*words, "--json")
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr or done.stdout}")
    found: Mapping[str, object] = json.loads(done.stdout)
    return found


class Callers:
    """All callers: each sends its call at once, and comes back with it while that makes sense."""

    def __init__(self, gateway: Gateway, keys: Mapping[str, str], kills: Sequence[int], draw: random.Random) -> None:
        """`kills`: after how many answers of the first wave the gateway is killed; `draw` spreads who comes back."""
        self._gateway, self._keys = gateway, keys
        self._kills = list(kills)
        self._draw = draw
        self.answers = 0
        self.waves = 0
        self.most_at_once = 0
        self._open = 0
        self._down: asyncio.Task[None] | None = None

    async def make(self, wishes: Sequence[Wish]) -> None:
        """Send waves until money refuses everybody in one of them."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            while self.waves < WAVES and (due := [wish for wish in wishes if wish.again]):
                self.waves += 1
                began, answers = time.monotonic(), self.answers
                await asyncio.gather(*(self._insist(session, wish, began + PATIENCE_S) for wish in due))
                if self._down is not None:
                    await self._down
                ends = Counter(wish.end for wish in due)
                print(
                    f"wave {self.waves}: {len(due)} calls, {self.answers - answers} answers"
                    f" in {time.monotonic() - began:.0f} s: {dict(ends)}",
                    flush=True,
                )
                if ends["429 insufficient_quota"] == len(due):
                    return

    async def _insist(self, session: aiohttp.ClientSession, wish: Wish, until: float) -> None:
        """Send a call until it has a picture, or nothing but money or its prompt keeps it from one."""
        pause = FIRST_PAUSE_S
        while True:
            told = await self._send(session, wish)
            wait = max(told, pause * self._draw.uniform(0.75, 1.0))
            if not wish.again or wish.refused or time.monotonic() + wait > until:
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)
            await asyncio.sleep(wait)

    async def _send(self, session: aiohttp.ClientSession, wish: Wish) -> float:
        """Send a call once; answers the seconds it was told to wait before it comes back."""
        url = f"http://{HOST}:{self._gateway.port}/v1/images/generations"
        headers = {
            "authorization": f"Bearer {self._keys[wish.team]}",
            "idempotency-key": f"call-{wish.number}-{wish.answers}",
        }
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        told = 0.0
        try:
            async with session.post(url, json=dict(wish.body), headers=headers) as response:
                content = await response.read()
                wish.end = "200" if response.status == 200 else f"{response.status} {_code(content)}"
                told = float(response.headers.get("retry-after", 0))
                wish.answers += 1
                self.answers += 1
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # cut off: it comes back under the same idempotency key
        finally:
            self._open -= 1
        if self._kills and self.answers >= self._kills[0] and self._down is None:
            self._kills.pop(0)
            self._down = asyncio.create_task(self._die())
        return told

    async def _die(self) -> None:
        self._gateway.stop(kill=True)
        await asyncio.to_thread(self._gateway.start)
        self._down = None


class Refusal(Struct):
    """OpenAI's error envelope, as far as it is read."""

    error: dict[str, object]


def _code(content: bytes) -> str:
    return str(msgspec.json.decode(content, type=Refusal).error.get("code"))


_RUNNING = """
    SELECT SUM(amount) OVER (ORDER BY seq) FROM (
        SELECT seq, CASE kind WHEN 'hold' THEN amount WHEN 'release' THEN -amount
            WHEN 'correction' THEN amount ELSE CASE note WHEN 'overrun' THEN amount ELSE 0 END END AS amount
        FROM entries {join} WHERE {where}
    )
"""
_OF: Mapping[Kind, tuple[str, str]] = {
    "team": ("", "book = 'charge' AND party = ?"),
    "account": ("", "book = 'cost' AND party = ?"),
    "key": ("JOIN attempts ON attempts.id = attempt_id", "book = 'charge' AND key_id = ?"),
}


def _held_or_spent(db: sqlite3.Connection, limit: Limit) -> tuple[int, int]:
    """The most that was ever set aside and spent together in a budget's name, and what it was at the end."""
    join, where = _OF[limit.kind]
    running = [total for (total,) in db.execute(_RUNNING.format(join=join, where=where), (limit.name,))]
    return max(running, default=0), running[-1] if running else 0


class Run(Struct, kw_only=True):
    """What happened."""

    wishes: Sequence[Wish]
    callers: Callers
    overspent: Mapping[str, int]
    """Budget -> nano-dollars beyond it, at its worst moment."""
    filled: Mapping[str, float]
    """Budget of a team or key that refused somebody -> the share of it that was spent."""
    books: judge.Books
    theirs: Mapping[str, int]
    faults: list[str]
    kills: int
    seconds: float


def run(options: Options, folder: Path) -> Run:
    """Send everything, wait until the books are quiet, read them."""
    began = time.monotonic()
    wishes = plan(options)
    with (
        stage.sandbox(folder, time_scale=options.time_scale, seed=options.seed) as sandbox,
        gateway(folder, sandbox.port, options.time_scale) as served,
    ):
        sandbox.script({"limits": SELLERS, "rules": FAULTS})
        served.start()
        keys, limits = set_budgets(served.home, wishes)
        kills = [options.calls * (number + 1) // (2 * options.kills + 2) for number in range(options.kills)]
        callers = Callers(served, keys, kills, random.Random(options.seed))
        asyncio.run(callers.make(wishes))
        database = served.home.state / "pixelgate.db"
        _settle(database, sandbox)
        served.stop()
        faults = stage.audit(served.home)
        books, theirs = judge.read_books(database), sandbox.books().invoice
        teams = {limit.name: team for limit in limits for team in keys if limit.kind == "team" and limit.name == team}
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            teams |= dict(db.execute("SELECT id, team FROM keys"))
            seen = {limit: _held_or_spent(db, limit) for limit in limits}
    short = {wish.team for wish in wishes if wish.refused}
    return Run(
        wishes=wishes,
        callers=callers,
        overspent={f"{limit.kind} {limit.name}": max(most - limit.amount, 0) for limit, (most, _) in seen.items()},
        filled={
            f"{limit.kind} {limit.name}": spent / limit.amount
            for limit, (_, spent) in seen.items()
            if limit.kind != "account" and teams[limit.name] in short
        },
        books=books,
        theirs={account: theirs.get(account, 0) for account in SELLERS},
        faults=faults,
        kills=served.kills,
        seconds=time.monotonic() - began,
    )


def _settle(database: Path, sandbox: stage.Sandbox) -> None:
    """Wait until no order is open and no seller draws, or time is up."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_S and (judge.read_books(database).unfinished or sandbox.at_work()):
        time.sleep(1.0)


def figures(done: Run, options: Options) -> Sequence[Figure]:
    """The two that matter first."""
    drift = sum(abs(done.books.cost.get(account, 0) - invoiced) for account, invoiced in done.theirs.items())
    return (
        Figure(name="calls", value=len(done.wishes), unit="", must=options.calls, at_least=True),
        Figure(name="at_once", value=done.callers.most_at_once, unit="calls", must=options.calls, at_least=True),
        Figure(name="orders", value=sum(done.books.orders.values()), unit=""),
        Figure(name="sigkills", value=done.kills, unit="", must=options.kills, at_least=True),
        Figure(name="overspent_nano_usd", value=sum(done.overspent.values()), unit="n$", must=0),
        Figure(name="budgets_short", value=len(done.filled), unit="", must=1, at_least=True),
        Figure(
            name="admitted_pct",
            value=100 * min(done.filled.values(), default=0.0),
            unit="% of the budget filled least",
            must=99.0,
            at_least=True,
        ),
        Figure(name="drift_nano_usd", value=drift, unit="n$", must=0),
        Figure(name="suspended", value=done.books.unfinished, unit="orders", must=0),
        Figure(name="waves", value=done.callers.waves, unit=""),
        Figure(name="duration_s", value=done.seconds, unit="s"),
    )


def main(arguments: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench budgets", description="Can a budget be overspent, or left unused?")
    parser.add_argument("--calls", type=int, default=10_000, help="calls sent at the same moment (default 10000)")
    add_options(parser)
    options = Options(**vars(parser.parse_args(arguments)))
    raise_file_limit()
    with work_folder(options.keep) as folder:
        done = run(options, folder)
    more = {
        "seed": options.seed,
        "ends": dict(Counter(wish.end for wish in done.wishes).most_common()),
        "filled_pct": {name: round(100 * share, 2) for name, share in done.filled.items()},
        "overspent_nano_usd": {name: beyond for name, beyond in done.overspent.items() if beyond},
    }
    for name, value in more.items():
        print(f"{name}: {value}")
    return conclude(figures(done, options), context=more, faults=done.faults, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
