"""`pixelgate sandbox`: the providers' twins alone."""

from __future__ import annotations

import asyncio

from gateway.cli.shell import Port, Stop, above_zero, run_async, say


def sandbox(*, port: Port = 0, host: str = "127.0.0.1", time_scale: float = 1.0, seed: int = 0) -> None:
    """Run servers that the real SDKs cannot tell from fal.ai, Together and Replicate, until Ctrl-C.

    Any key `sandbox-<account>` opens an account of that name. Point an account of your gateway.yaml here with
    `base_url`. Faults, limits and prices are scripted by POST /_sandbox/script; the invoice is GET /_sandbox/invoice.

    Parameters
    ----------
    port
        Port to listen on; 0 takes a free one.
    host
        Address to listen on. The sandbox is meant for loopback.
    time_scale
        1 is as slow as the real ones; 0.01 is for tests.
    seed
        The same seed draws the same latencies.
    """
    run_async(_run(host, port, above_zero(time_scale), seed))


async def _run(host: str, port: int, time_scale: float, seed: int) -> None:
    from providers.sandbox import start

    try:
        sandbox = await start(host=host, port=port, time_scale=time_scale, seed=seed)
    except OSError as error:
        raise Stop(f"cannot listen on {host} port {port}: {error.strerror}; --port 0 takes a free port") from None
    async with sandbox as twins:
        print(twins.url, flush=True)
        say(f"fal:        {twins.url}/fal         key: sandbox-fal")
        say(f"Together:   {twins.url}/together    key: sandbox-together")
        say(f"Replicate:  {twins.url}/replicate   key: sandbox-replicate")
        say(f"OpenAI:     {twins.url}/openai      key: sandbox-openai")
        say(f"own server: {twins.url}/selfhosted  and machines: {twins.url}/selfhosted/machines/sglang-1")
        say(f"invoice:    {twins.url}/_sandbox/invoice")
        say("Ctrl-C ends it.")
        await asyncio.Event().wait()
