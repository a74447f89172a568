"""LiteLLM's own Router among the peers: installed on demand beside `.venv`, and asked over a pipe.

Where our imitations in `bench/routing/baselines.py` read its source, this one runs it. It gets what every peer gets
(the filter for sizes, fall-back to other providers) and, for its cost strategy, a cap on what an account has in flight;
cooldowns are its own. A model group is a quality; prices are those of a 1 MP picture.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.routing.api import Account, Decision, Endpoint, Event, Reason, Request, Snapshot
from bench.routing.baselines import Base
from tests.clients.installing import python_environment

STRATEGIES = (
    "simple-shuffle",
    "least-busy",
    "latency-based-routing",
    "cost-based-routing",
    "usage-based-routing-v2",
)
_STATUS = {"ok": 200, "throttled": 429, "timeout": 408, "error": 500, "no_credit": 402}
_AGAIN_S = 1.0


class LiteLLMRouter(Base):
    """One strategy of the Router, in a process of its own."""

    def __init__(self, strategy: str) -> None:
        self.strategy = strategy
        self.name = f"LiteLLM {strategy.removesuffix('-routing').removesuffix('-routing-v2')}"
        self.headroom = strategy == "cost-based-routing"
        self._process: subprocess.Popen[str] | None = None

    def start(self, endpoints: Sequence[Endpoint], accounts: Sequence[Account], seed: int) -> None:
        """Begin: a Router of its own, and a clock at zero."""
        super().start(endpoints, accounts, seed)
        self.close()
        python = python_environment("litellm", lambda text: print(text, file=sys.stderr, flush=True))
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("litellm_router.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**kept, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONSAFEPATH": "1"},
        )
        deployments = [
            {
                "id": str(each.index),
                "group": str(each.quality),
                "price": self.price(each.index, _PICTURE, exact=False),
                "rpm": accounts[each.account].rpm,
            }
            for each in endpoints
        ]
        self._ask({"do": "start", "strategy": self.strategy, "deployments": deployments})

    def decide(self, r: Request, s: Snapshot, now: float, reason: Reason) -> Decision:
        """Ask it for the lowest quality that will do, then for the next; wait where it has nobody."""
        if reason == "wake" and r.live:
            return Decision()
        ok = self.candidates(r, now)
        if not ok:
            return Decision(drop=True)
        for quality in sorted({self.eps[e].quality for e in ok}):
            group = [each for each in self.eps if each.quality == quality]
            able = {e for e in ok if self.eps[e].quality == quality and self._has_room(e, s)}
            if not able:
                continue
            without = [str(each.index) for each in group if each.index not in able]
            found = self._ask({"do": "pick", "now": now, "group": str(quality), "without": without})["id"]
            if found is not None:
                self._tell({"do": "sent", "now": now, "group": str(quality), "id": found})
                return Decision(int(found))
        return Decision(wake_at=now + _AGAIN_S) if now < r.deadline + 20 else Decision(drop=True)

    def _has_room(self, e: int, s: Snapshot) -> bool:
        account = self.accts[self.eps[e].account]
        return not self.headroom or s.inflight[account.index] < account.concurrency

    def feedback(self, event: Event, now: float) -> None:
        """Tell it how a call ended; a call that was taken back did not."""
        if event.kind == "started":
            return
        status = _STATUS.get(event.kind, 499)
        group = str(self.eps[event.endpoint].quality)
        told = {"now": now, "group": group, "id": str(event.endpoint), "seconds": event.latency, "status": status}
        self._tell({"do": "ended", **told})

    def close(self) -> None:
        """End its process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self._tell(order)
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}; it said nothing")
        found: dict[str, Any] = json.loads(answer)
        return found


_PICTURE = Request(0, 0.0, 0.0, 1, 1.0, 1, False, 0.0, 0.0)  # noqa: FBT003 - a 1 MP picture, whoever asks


def routers() -> list[Callable[[], LiteLLMRouter]]:
    """Every strategy, to be made anew for a run."""
    return [_maker(strategy) for strategy in STRATEGIES]


def _maker(strategy: str) -> Callable[[], LiteLLMRouter]:
    return lambda: LiteLLMRouter(strategy)
