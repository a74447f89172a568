"""One HTTP request to a process of the bench, waited for; nothing here is fast or needs to be."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping

import msgspec

from bench.processes import Child, ChildEndedError

HOST = "127.0.0.1"
START_S = 30.0
"""Seconds a process may take before it counts as broken."""


def ask(
    port: int,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    within_s: float = 10.0,
) -> tuple[int, bytes]:
    """Status and body of a GET, or of a POST when there is a body; raises OSError when nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=within_s)
    try:
        connection.request("GET" if body is None else "POST", path, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as broken:
        raise ConnectionError(str(broken) or type(broken).__name__) from broken
    finally:
        connection.close()


def ask_json(port: int, path: str, body: object = None, *, within_s: float = 10.0) -> dict[str, object]:
    """The JSON object a control endpoint answers; raises when it refuses."""
    content = None if body is None else msgspec.json.encode(body)
    status, answer = ask(port, path, body=content, headers={"content-type": "application/json"}, within_s=within_s)
    if status != 200:
        raise ConnectionError(f"{path} answered {status}: {answer[:500]!r}")
    return msgspec.json.decode(answer, type=dict[str, object])


def wait_for_200(
    child: Child,
    port: int,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    within_s: float = START_S,
) -> float:
    """Ask until the answer is 200; answers the seconds since the process was started."""
    last = "nothing listened"
    while time.monotonic() - child.started < within_s:
        child.must_live()
        try:
            status, answer = ask(port, path, body=body, headers=headers)
        except OSError as unreachable:
            last = str(unreachable)
        else:
            if status == 200:
                return time.monotonic() - child.started
            last = f"{status} {answer[:500]!r}"
        time.sleep(0.01)
    raise ChildEndedError(f"{path} gave no 200 within {within_s:g} s, last: {last}\n{child.last_words()}")
