"""A seller that changes its prices without a word, told by a real gateway to a real hook."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from bench.gateway_config import Home, copy_catalog, write_home
from bench.loopback import HOST, ask, wait_for_200
from bench.money import stage
from bench.processes import free_port, running
from gateway.features.alerts import LOOK_S
from gateway.settings import Recovery

Alert = Mapping[str, object]
A_MINUTE_S = 60.0


class Hook(ThreadingHTTPServer):
    """Somebody's own service that takes alerts in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Reader)
        self.told: list[Alert] = []

    def first(self, kind: str, **facts: object) -> Alert | None:
        """The first alert of a kind with these facts."""
        return next(
            (each for each in self.told if each["kind"] == kind and facts.items() <= dict(each["facts"]).items()),  # type: ignore[call-overload]
            None,
        )


class _Reader(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Hook)
        self.server.told.append(msgspec.json.decode(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: tests are quiet."""


@contextmanager
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def until(found: Callable[[], Alert | None]) -> Alert:
    """What is found in the end; the limit is for a machine that does ten other things."""
    end = time.monotonic() + A_MINUTE_S
    while (told := found()) is None:
        assert time.monotonic() < end, "nobody was told"
        time.sleep(0.05)
    return told


def home(folder: Path, sandbox_port: int, hook_port: int) -> Home:
    account = {"kind": "fal", "key_env": "SHOP_KEY", "base_url": f"http://{HOST}:{sandbox_port}/fal"}
    settings = {
        "accounts": {"fal": account},
        "alerts": {"hooks": [{"url_env": "HOOK_URL"}]},
        "recovery": {"bills": "500ms", "price_lists": "1s"},
    }
    env = {"SHOP_KEY": "sandbox-fal", "HOOK_URL": f"http://{HOST}:{hook_port}/"}
    made = write_home(folder, settings=settings, env=env)
    copy_catalog(made, pace=0.02)
    return made


def test_what_changes_in_silence_reaches_the_hook_as_price_as_unit_and_as_number_of_units(tmp_path: Path) -> None:
    with stage.sandbox(tmp_path, time_scale=0.02, seed=1) as sandbox, hook() as told:
        where = home(tmp_path / "home", sandbox.port, told.server_port)
        key, port = where.create_key("acme"), free_port()

        def draw() -> None:
            body = msgspec.json.encode({"model": "flux-dev", "prompt": "a lighthouse", "size": "1024x1024"})
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            status, answer = ask(port, "/v1/images/generations", body=body, headers=headers, within_s=30)
            assert status == 200, answer

        command = where.command("serve", "--host", HOST, "--port", str(port))
        with running(command, log=tmp_path / "gateway.log", env=where.env) as child:
            wait_for_200(child, port, "/health/ready")
            sandbox.script({"prices": {"fal": {"fal-ai/flux/dev": "0.026"}}})
            draw()
            assert "The price changed of fal-ai/flux/dev" in str(until(lambda: told.first("bill_drift"))["text"])
            until(lambda: told.first("listed_price", listed_nano_usd=26_000_000))
            sandbox.script({"units": {"fal": {"fal-ai/flux/dev": "second"}}})
            until(lambda: told.first("listed_price", verdict="unit", unit="second"))
            sandbox.script({"counted": {"fal": {"fal-ai/flux/dev": "2"}}})
            draw()
            until(lambda: told.first("bill_drift", nano_usd=27_000_000))
            done = where.run("ledger", "reconcile")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "1 order billed otherwise (price): 1 unit at $0.026 billed, 1 at $0.025 reckoned" in done.stderr
            assert "1 order billed otherwise (price and units): 2 units at $0.026 billed" in done.stderr
            (where.folder / "policies" / "default.yaml").write_text("name: [\n")
            done = where.run("ledger", "reconcile")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Without a catalogue" in done.stderr
            assert "2 orders billed otherwise" in done.stderr


def test_the_shipped_intervals_tell_a_silent_price_within_a_minute() -> None:
    assert Recovery().bills + LOOK_S + A_MINUTE_S / 4 <= A_MINUTE_S
