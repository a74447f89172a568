"""LiteLLM's own Router, asked over a pipe which deployment it would take. Runs in LiteLLM's environment, not in ours.

One JSON object a line in, and one out for each that has an answer:

    {"do": "start", "strategy": "cost-based-routing", "deployments": [{"id", "group", "price", "rpm"}]}    -> {}
    {"do": "pick", "now": 12.5, "group": "1", "without": ["0"]}                 -> {"id": "3"}, or {"id": null}
    {"do": "sent", "now": 12.5, "id": "3", "group": "1"}
    {"do": "ended", "now": 13.6, "id": "3", "group": "1", "seconds": 1.1, "status": 200}

Nothing is called: where the Router would place a call it says whom it chose, and hears how that ended through the very
callbacks that its calls make. Its clocks are set to the simulator's.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

BEGINS = 1_795_000_000.0
TIMED_OUT, THROTTLED, OK = 408, 429, 200


class Clock:
    """Virtual time, in place of every clock the Router reads."""

    def __init__(self) -> None:
        self.now = BEGINS

    def take_over(self) -> None:
        """Replace `time.time` and what LiteLLM's modules call `datetime` and `get_utc_datetime`."""
        clock = self

        class Virtual(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.fromtimestamp(clock.now, tz or UTC)

        time.time = lambda: clock.now
        modules: dict[str, Any] = dict(sys.modules)
        for name, module in modules.items():
            if name.startswith("litellm.router"):
                if getattr(module, "datetime", None) is datetime:
                    module.datetime = Virtual
                if hasattr(module, "get_utc_datetime"):
                    module.get_utc_datetime = Virtual.now


class Asked:
    """One Router, under one strategy."""

    def __init__(self, order: Mapping[str, Any], clock: Clock) -> None:
        self.litellm = _module("litellm")
        self.litellm.suppress_debug_info = True
        self.clock = clock
        self.router = self.litellm.Router(
            model_list=[_deployment(each) for each in order["deployments"]],
            routing_strategy=order["strategy"],
            num_retries=0,
            disable_cooldowns=False,
        )
        self.selectors = [
            found
            for name in ("leastbusy_logger", "lowesttpm_logger_v2", "lowestlatency_logger", "lowestcost_logger")
            if (found := getattr(self.router, name, None)) is not None
        ]
        self.by_usage = getattr(self.router, "lowesttpm_logger_v2", None)
        random.seed(7)
        clock.take_over()

    async def pick(self, order: Mapping[str, Any]) -> str | None:
        """The deployment that a call of a group would go to; None when none is left."""
        try:
            found = await self.router.async_get_available_deployment(
                model=order["group"],
                request_kwargs={"_excluded_deployment_ids": set(order["without"])},
                input="a picture",
            )
            if self.by_usage is not None:
                await self.by_usage.async_pre_call_check(found, None)  # counts the call against its rpm
        except Exception:  # noqa: BLE001 - it raises many kinds for "nobody", all of which its callers see as failures
            return None
        return str(found["model_info"]["id"])

    async def ended(self, order: Mapping[str, Any]) -> None:
        """Tell it how a call ended, as its own calls do."""
        status = order["status"]
        ended = datetime.fromtimestamp(self.clock.now, UTC)
        began = ended - timedelta(seconds=order["seconds"])
        kwargs = self._kwargs(order)
        if status == OK:
            for each in self.selectors:
                await each.async_log_success_event(kwargs, None, began, ended)
            await self.router.deployment_callback_on_success(kwargs, None, began, ended)
            return
        kwargs["exception"] = self._failure(status)
        for each in self.selectors:
            await each.async_log_failure_event(kwargs, None, began, ended)
        self.router.deployment_callback_on_failure(kwargs, None, began, ended)

    def sent(self, order: Mapping[str, Any]) -> None:
        """Tell it that a call goes out."""
        for each in self.selectors:
            each.log_pre_api_call("image", [], self._kwargs(order))

    def _kwargs(self, order: Mapping[str, Any]) -> dict[str, Any]:
        told = {"model_group": order["group"], "deployment": order["id"]}
        return {
            "litellm_params": {"metadata": told, "model_info": {"id": order["id"]}},
            "standard_logging_object": {
                "total_tokens": 0,
                "model_group": order["group"],
                "model_id": order["id"],
                "hidden_params": {"litellm_model_name": f"openai/image-{order['id']}"},
            },
        }

    def _failure(self, status: int) -> Exception:
        kinds = {TIMED_OUT: self.litellm.Timeout, THROTTLED: self.litellm.RateLimitError}
        kind = kinds.get(status, self.litellm.InternalServerError)
        made: Exception = kind(message="simulated", model="image", llm_provider="openai")
        return made


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _deployment(order: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {
        "model": f"openai/image-{order['id']}",
        "api_key": "none",
        # Its cost strategy reads prices of tokens alone; a price of 0 counts as unknown there, which is $5.
        "input_cost_per_token": order["price"] or 1e-9,
        "output_cost_per_token": 1e-12,
    }
    if order["rpm"]:
        params["rpm"] = order["rpm"]
    return {"model_name": order["group"], "litellm_params": params, "model_info": {"id": order["id"]}}


async def serve() -> None:
    """Answer until the pipe closes."""
    clock, asked = Clock(), None
    for text in sys.stdin:
        order = json.loads(text)
        clock.now = BEGINS + order.get("now", 0.0)
        answer: dict[str, Any] | None = None
        match order["do"]:
            case "start":
                asked, answer = Asked(order, clock), {}
            case "pick" if asked is not None:
                answer = {"id": await asked.pick(order)}
            case "sent" if asked is not None:
                asked.sent(order)
            case "ended" if asked is not None:
                await asked.ended(order)
        if answer is not None:
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
