"""A vision model's twin: an OpenAI-style chat endpoint on loopback, which calls the redder of two pictures better."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pybase64
from aiohttp import web
from PIL import Image

KEY = "judge-key"


class JudgeTwin:
    """What it was asked, and how it behaves."""

    def __init__(self) -> None:
        self.questions: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answers: Callable[[str], str] = lambda better: json.dumps({"better": better})
        """What it says instead of the right answer."""
        self.refuses: str | None = None
        self.status = 200
        self.slow = 0.0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """`POST /v1/chat/completions`, of the shape that OpenAI documents."""
        asked = await request.json()
        self.questions.append(asked)
        self.keys.append(request.headers.get("Authorization"))
        await asyncio.sleep(self.slow)
        if self.status != 200:
            return web.json_response({"error": {"message": "no", "type": "server_error"}}, status=self.status)
        message = {"role": "assistant", "content": self.answers(redder(asked)), "refusal": None}
        if self.refuses is not None:
            message |= {"content": None, "refusal": self.refuses}
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1_795_000_000,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1_700, "completion_tokens": 9, "total_tokens": 1_709},
            }
        )


def pictures(asked: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a question, in its order."""
    found: list[Image.Image] = []
    for part in asked["messages"][-1]["content"]:
        if part["type"] == "image_url":
            head, _, body = part["image_url"]["url"].partition(",")
            assert head == "data:image/jpeg;base64"
            found.append(Image.open(io.BytesIO(pybase64.b64decode(body, validate=True))))
    return found


def redder(asked: dict[str, Any]) -> str:
    """A, B or tie."""
    one, other = (float(np.asarray(each)[..., 0].mean()) for each in pictures(asked))
    return "tie" if abs(one - other) < 1 else "A" if one > other else "B"


@asynccontextmanager
async def judge_twin() -> AsyncIterator[JudgeTwin]:
    """A judge that listens."""
    twin = JudgeTwin()
    app = web.Application(client_max_size=32 * 2**20)
    app.router.add_post("/v1/chat/completions", twin.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    twin.url = f"http://{host}:{port}/v1"
    try:
        yield twin
    finally:
        await runner.cleanup()
