"""What the drivers written in Python share: cases come as JSON on standard input, outcomes leave as JSON lines.

A case is `{"name", "key", "prompt", "size", "model", "tries", ...}`. A driver's `draw` returns a list of pictures, each a
URL or base64, or raises whatever its client raises. Runs under the client's own interpreter, so it imports nothing of ours.
"""

from __future__ import annotations

import inspect
import json
import sys
import traceback
from asyncio import Runner
from collections.abc import Awaitable, Callable

Case = dict[str, object]


def serve(make: Callable[[str], Callable[[Case], list[str] | Awaitable[list[str]]]]) -> None:
    """Answer every case; `make` takes the base URL and gives `draw`."""
    told = json.load(sys.stdin)
    draw = make(told["base_url"])
    with Runner() as runner:
        for case in told["cases"]:
            print(json.dumps({"name": case["name"], **_outcome(draw, case, runner)}), flush=True)


def _outcome(draw: Callable[[Case], list[str] | Awaitable[list[str]]], case: Case, runner: Runner) -> Case:
    pictures: list[str] = []
    try:
        for _ in range(case.get("tries", 1)):
            drawn = draw(case)
            pictures = runner.run(_finish(drawn)) if inspect.isawaitable(drawn) else drawn
    except Exception as error:  # the classes a client raises are what is asked for
        traceback.print_exc()
        return {"error": _described(error)}
    return {"pictures": pictures}


async def _finish(drawn: Awaitable[list[str]]) -> list[str]:
    return await drawn


def _described(error: BaseException) -> Case:
    return {
        "classes": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "message": str(error)[:5000],
        "cause": _described(error.__cause__) if error.__cause__ else None,
    }
