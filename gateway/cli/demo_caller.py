"""The demo's customer: the official `openai` client, which knows nothing of pixelgate, in a process of its own.

Started before the gateway, because importing the client takes longer than starting one. Reads one JSON line from
standard input (`base_url`, `key`, `prompt`, `output`), writes one JSON line for each picture it got.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types import ImagesResponse


def main() -> None:
    """Draw a preview, then its export."""
    told = json.loads(sys.stdin.readline())
    output = Path(told["output"])
    client = OpenAI(base_url=told["base_url"], api_key=told["key"], max_retries=0)

    began = time.monotonic()
    preview = client.images.generate(prompt=told["prompt"], size="1024x1024", response_format="b64_json")
    data = base64.b64decode(_first(preview).b64_json)
    _report("preview", preview, data, output / "preview.png", time.monotonic() - began)

    began = time.monotonic()
    export = client.post(
        f"/images/{_first(preview).id}/promote", body={"response_format": "url"}, cast_to=ImagesResponse
    )
    with urllib.request.urlopen(_first(export).url) as answer:  # noqa: S310 - the gateway's own address
        data = answer.read()
    _report("export", export, data, output / "export.png", time.monotonic() - began)


def _first(response: ImagesResponse) -> Any:
    """The first picture; `id`, like everything else of pixelgate, is an extra field the client hands through."""
    assert response.data
    return response.data[0]


def _report(what: str, response: ImagesResponse, data: bytes, path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    extra = response.model_extra or {}
    line = {"what": what, "path": str(path), "seconds": seconds, "id": _first(response).id, **extra["pixelgate"]}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
