"""The two processes of a money run: the sandbox that sells and bills, and the gateway that is killed and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.gateway_config import Home, copy_catalog, hurry_policy, write_home
from bench.loopback import HOST, ask, ask_json, wait_for_200
from bench.money.judge import SandboxBooks
from bench.money.traffic import TEAMS
from bench.processes import Child, free_port, python, running

ACCOUNTS: Mapping[str, str] = {
    "fal": "fal",
    "fal-eu": "fal",
    "together": "together",
    "replicate": "replicate",
    "own": "selfhosted",
}
"""Provider account -> seller. The sandbox takes the key `sandbox-NAME` for its account NAME."""

TOLD: Mapping[str, Mapping[str, float]] = {
    "fal": {"concurrency": 10},
    "together": {"rate": 20.0, "burst": 20},
    "replicate": {"rate": 10.0, "burst": 20},
    "selfhosted": {},
}
"""Seller -> the limits the gateway is configured with."""
LOWERED: Mapping[str, object] = {
    "fal/fal": {"concurrency": 4},
    "together": {"rate": 8.0, "burst": 8},
    "replicate": {"rate": 4.0, "burst": 8},
}
"""Limits it is not told of."""


BILLING: Mapping[str, Mapping[str, object]] = {
    "fal": {
        "volume": [{"from_request": 40, "discount": "5%"}, {"from_request": 90, "discount": "10%"}],
        "applies": "marginal",
        "free": [{"name": "gift", "amount": "$0.05", "per": "once"}],
    },
    "fal-eu": {
        "volume": [{"from_request": 30, "discount": "7.25%"}],
        "applies": "whole",
        "free": [{"name": "pictures", "images": 5, "per": "month"}],
        "credit": [{"name": "small", "amount": "$0.1"}, {"name": "large", "amount": "$0.25", "expires": "2999-01-01"}],
    },
    "own": {"licences": [{"model": "flux-schnell", "fee": "$9", "included": 20, "overage": "$0.001"}]},
}
"""What invoices make of list prices, as the gateway is told..."""
CONTRACTS: Mapping[str, Mapping[str, object]] = {
    "fal/fal": {"off": [[40, "5"], [90, "10"]], "free": [{"usd": "0.05", "every": "lifetime"}]},
    "fal/fal-eu": {
        "off": [[30, "7.25"]],
        "backdated": True,
        "free": [{"pictures": 5}],
        "prepaid": [{"usd": "0.1"}, {"usd": "0.25", "lapses": "2999-01-01T00:00:00Z"}],
    },
    "selfhosted/own": {
        "royalties": {"flux-schnell": {"monthly_usd": "9", "pictures": 20, "further_usd": "0.001"}},
    },
}
"""...and as the sellers know it, in their own words."""
LICENCES: Mapping[str, str] = {"licence:flux-schnell": "selfhosted"}
"""Owners of weights that our machines draw with, and which seller's twin writes their bill."""

MACHINES: Mapping[str, Mapping[str, object]] = {
    "rack1": {"dialect": "sglang", "models": ["flux-schnell"], "slots": 1},
    "rack2": {"dialect": "vllm-omni", "models": ["flux-schnell"], "slots": 4},
    "rack3": {"dialect": "openai", "models": ["flux-dev"], "slots": 2},
}
"""Our own GPUs, at the gateway and in the sandbox alike."""


HASTE = 5.0
"""The sellers' time runs faster than ours in the gateway does, so seconds of a policy are shortened by less."""


class Sandbox:
    """The sellers, in a process of their own that outlives the gateway's deaths."""

    def __init__(self, port: int) -> None:
        self.port = port

    def script(self, script: Mapping[str, object]) -> None:
        """From now on these faults, limits and prices."""
        ask_json(self.port, "/_sandbox/script", {"pictures": "plain", **script})

    def save_invoice(self, folder: Path) -> None:
        """Leave the invoice behind, line by line, beside the gateway's database."""
        (folder / "invoice.json").write_bytes(ask(self.port, "/_sandbox/invoice", within_s=60)[1])

    def at_work(self) -> bool:
        """Whether it still draws: what it finishes later is on no invoice yet."""
        return any(account.in_flight for account in self._seen().values())

    def _seen(self) -> Mapping[str, AccountStats]:
        stats = msgspec.convert(ask_json(self.port, "/_sandbox/stats", within_s=60), dict[str, dict[str, AccountStats]])
        return {name: account for accounts in stats.values() for name, account in accounts.items()}

    def books(self) -> SandboxBooks:
        """What it billed and counted."""
        invoice = msgspec.convert(ask_json(self.port, "/_sandbox/invoice", within_s=60), Invoice)
        seen = self._seen()
        return SandboxBooks(
            invoice={
                name: invoice.by_account.get(seller, {}).get(name, 0)
                for name, seller in {**ACCOUNTS, **LICENCES}.items()
            },
            submissions={name: account.submissions for name, account in seen.items()},
            repeats=sum(times - 1 for account in seen.values() for times in account.attempts.values()),
            limit_violations={name: account.limit_violations for name, account in seen.items()},
        )


class Invoice(Struct):
    """As much of the sandbox's invoice as is compared."""

    by_account: dict[str, dict[str, int]]


class AccountStats(Struct):
    """As much of the sandbox's counts as is compared."""

    submissions: int = 0
    in_flight: int = 0
    limit_violations: int = 0
    attempts: dict[str, int] = {}
    """Attempt of ours -> how often it was submitted, where the seller's protocol shows it."""


@contextmanager
def sandbox(
    folder: Path, *, time_scale: float, seed: int, contracts: Mapping[str, Mapping[str, object]] | None = None
) -> Iterator[Sandbox]:
    """The sandbox for the length of a block; without `contracts`, list prices are what it bills."""
    port = free_port()
    command = python("providers.sandbox", "--port", str(port), "--time-scale", str(time_scale), "--seed", str(seed))
    with running(command, log=folder / "sandbox.log") as child:
        wait_for_200(child, port, "/_sandbox/stats")
        started = Sandbox(port)
        started.script({"machines": MACHINES, "contracts": contracts or {}})
        yield started


class Gateway:
    """The gateway under test: one configuration and state, one process after another."""

    def __init__(self, home: Home, port: int, log: Path) -> None:
        self.home = home
        self.port = port
        self.keys = {team: home.create_key(team) for team in TEAMS}
        self.kills = 0
        self.log = log
        self._child: Child | None = None

    def start(self) -> float:
        """Start a process; answers the seconds until it was ready."""
        command = self.home.command("serve", "--host", HOST, "--port", str(self.port))
        self._child = Child(command, log=self.log, core=None, env=self.home.env)
        return wait_for_200(self._child, self.port, "/health/ready")

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        if self._child is not None:
            self._child.kill()
            self.kills += 1

    def stop(self) -> None:
        """Ask it to leave, as an operator would."""
        if self._child is not None:
            self._child.stop(within_s=20)

    def must_live(self) -> None:
        """Raise when it has ended by itself."""
        if self._child is not None:
            self._child.must_live()

    def hedges(self) -> int:
        """Orders placed beside others, as far as its log tells; a kill takes the last lines with it."""
        return self.log.read_bytes().count(b'"order_hedged"')

    async def restart_killed(self) -> float:
        """Kill it and start it again; answers the seconds until it was ready."""
        self.kill()
        return await asyncio.to_thread(self.start)


@contextmanager
def gateway(folder: Path, sandbox_port: int, *, time_scale: float) -> Iterator[Gateway]:
    """The gateway for the length of a block, selling through the sandbox's accounts."""
    port = free_port()
    home = write_home(folder / "gateway", settings=_settings(sandbox_port, port), env=_keys())
    copy_catalog(home, pace=time_scale)
    hurry_policy(home, pace=HASTE * time_scale)
    served = Gateway(home, port, folder / "gateway.log")
    try:
        served.start()
        yield served
    finally:
        served.stop()


def _settings(sandbox_port: int, port: int) -> Mapping[str, object]:
    """An account or two at each seller, webhooks on, and every wait short, because the sandbox's time runs fast."""
    url = f"http://{HOST}:{sandbox_port}"
    accounts: dict[str, Mapping[str, object]] = {
        name: {
            "kind": seller,
            "key_env": _variable(name),
            "base_url": f"{url}/{seller}",
            **TOLD[seller],
            "billing": BILLING.get(name, {}),
        }
        for name, seller in ACCOUNTS.items()
        if seller != "selfhosted"
    }
    accounts["own"] = {
        "kind": "selfhosted",
        "key_env": _variable("own"),
        "machine_hour": "$0.34",
        "billing": BILLING["own"],
        "nodes": [
            {"name": name, "base_url": f"{url}/selfhosted/machines/{name}", **machine}
            for name, machine in MACHINES.items()
        ],
        "options": {"usage": True, "probe_every": 0.5, "quarantine": 1, "linger": 5, "wait": 1},
    }
    return {
        "accounts": accounts,
        "database": {"durability": "process"},
        "public_url": f"http://{HOST}:{port}",
        "callbacks": True,
        "orders": {"timeout": "4s", "least_patience": "3s", "linger": "8s", "drain": "5s"},
        "recovery": {"every": "1s", "stale_after": "3s", "reconcile": "2s", "unknown_after": "6s"},
    }


def _keys() -> Mapping[str, str]:
    return {_variable(name): f"sandbox-{name}" for name in ACCOUNTS}


def _variable(account: str) -> str:
    return f"BENCH_{account.upper().replace('-', '_')}_KEY"


def audit(home: Home) -> list[str]:
    """What `pixelgate ledger audit` objects to; empty when all promises about money hold."""
    done = home.run("ledger", "audit")
    return [] if done.returncode == 0 else (done.stdout + done.stderr).strip().splitlines()
