"""What the drivers written in Python share: cases come as JSON on standard input, outcomes leave as JSON lines.

A case is `{"name", "key", "prompt", "size", "model", "tries", ...}`; one with `images` (base64), and maybe `mask`, is an
edit. A driver's `draw` returns a list of pictures, each a URL or base64, or `{"pictures", "partials"}`, or raises whatever
its client raises. Runs under the client's own interpreter, so it imports nothing of ours.
"""

from __future__ import annotations

import base64
import inspect
import json
import sys
import traceback
from asyncio import Runner
from collections.abc import Awaitable, Callable, Sequence

Case = dict[str, object]
Drawn = list[str] | dict[str, list[str]]
Draw = Callable[[Case], Drawn | Awaitable[Drawn]]


def pick(case: Case, names: Sequence[str]) -> Case:
    """What a case says of `names`."""
    return {name: case[name] for name in names if case.get(name) is not None}


def pictures_of(case: Case, *, always_listed: bool = False) -> dict[str, object]:
    """The pictures of an edit as bytes, one of them by itself: `image`, and `mask` where there is one."""
    images = [base64.b64decode(one) for one in case["images"]]
    mask = {"mask": base64.b64decode(case["mask"])} if "mask" in case else {}
    return {"image": images if always_listed or len(images) > 1 else images[0], **mask}


def serve(make: Callable[[str], Draw]) -> None:
    """Answer every case; `make` takes the base URL and gives `draw`."""
    told = json.load(sys.stdin)
    draw = make(told["base_url"])
    with Runner() as runner:
        for case in told["cases"]:
            print(json.dumps({"name": case["name"], **_outcome(draw, case, runner)}), flush=True)


def _outcome(draw: Draw, case: Case, runner: Runner) -> Case:
    pictures: Drawn = []
    try:
        for _ in range(case.get("tries", 1)):
            drawn = draw(case)
            pictures = runner.run(_finish(drawn)) if inspect.isawaitable(drawn) else drawn
    except Exception as error:  # the classes a client raises are what is asked for
        traceback.print_exc()
        return {"error": _described(error)}
    return pictures if isinstance(pictures, dict) else {"pictures": pictures}


async def _finish(drawn: Awaitable[Drawn]) -> Drawn:
    return await drawn


def _described(error: BaseException) -> Case:
    return {
        "classes": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "message": str(error)[:5000],
        "cause": _described(error.__cause__) if error.__cause__ else None,
    }
