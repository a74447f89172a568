"""`python -m providers.sandbox`: the sandbox as a process; prints `{"url": ...}` when it listens, ends on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from providers.sandbox.server import start


async def _serve(options: argparse.Namespace) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sandbox = await start(
        port=options.port, time_scale=options.time_scale, seed=options.seed, pictures=options.pictures
    )
    async with sandbox:
        sys.stdout.write(json.dumps({"url": sandbox.url}) + "\n")
        sys.stdout.flush()
        await ended.wait()


def main() -> None:
    """Read the options and serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m providers.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--time-scale", type=float, default=1.0, help="multiplies work times; 0.01 for tests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", choices=("rich", "plain"), default="rich")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
