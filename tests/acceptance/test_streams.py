"""A streamed export and its preview through the official client, before real processes: what the events say is owed."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from openai import OpenAI

from bench.loopback import HOST
from bench.money.stage import sandbox
from providers.picture import complete
from tests.acceptance.test_repeats import Gateway, charged


def allow_previews(gateway: Gateway) -> None:
    """Have the policy pay for previews; the gateway reads it when it starts."""
    policy = gateway.home.folder / "policies" / "default.yaml"
    policy.write_text(f"{policy.read_text()}\nstreaming:\n  preview: $0.004\n")
    gateway.stop()
    gateway.start()


@pytest.mark.slow
def test_a_stream_costs_what_its_picture_and_its_declared_preview_cost(tmp_path: Path) -> None:
    with sandbox(tmp_path, time_scale=0.1, seed=1) as sellers:
        gateway = Gateway(tmp_path, sellers.port)
        try:
            allow_previews(gateway)
            with OpenAI(base_url=f"http://{HOST}:{gateway.port}/v1", api_key=gateway.key, max_retries=0) as client:
                plain = client.images.generate(prompt="a paper boat", quality="high")
                alone = charged(gateway)
                stream = client.images.generate(prompt="a paper boat", quality="high", stream=True, partial_images=1)
                events = list(stream)
            costs = [event.model_extra["pixelgate"]["nano_usd"] for event in events if event.model_extra]
            assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "completed"]
            assert all(complete(base64.b64decode(event.b64_json)) for event in events)
            assert plain.model_extra is not None
            assert costs[-1] == alone == plain.model_extra["pixelgate"]["nano_usd"]
            assert sum(costs) + alone == charged(gateway) == sellers.books().invoice["fal"]
        finally:
            gateway.stop()
