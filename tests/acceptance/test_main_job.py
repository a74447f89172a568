"""The main job as a user does it: a real process, the official client, real SDKs behind it, and both books."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import openai
import pytest

from providers.picture import complete, probe

CHECKOUT = Path(__file__).resolve().parents[2]
SELLERS = ("fal", "together", "replicate", "selfhosted")


class Demo:
    """A running demo: its fixtures, and clients that speak to it."""

    def __init__(self, fixtures: dict[str, str], state: Path) -> None:
        self.fixtures = fixtures
        self.state = state
        self.client = openai.OpenAI(base_url=fixtures["base_url"], api_key=fixtures["key"], max_retries=0)
        self.http = httpx.Client(
            base_url=fixtures["base_url"], headers={"Authorization": f"Bearer {fixtures['key']}"}, timeout=60
        )

    def run(self, *words: str) -> dict[str, object]:
        """A pixelgate command over the demo's state, read as JSON."""
        command = [sys.executable, "-m", "gateway", *words, "--json", "--state", str(self.state)]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    fixtures = folder / "fixtures.json"
    command = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--fixtures", str(fixtures)]
    command += ["--state", str(folder / "state"), "--time-scale", "0.02"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, env=dict(os.environ)) as process:
        try:
            until = time.monotonic() + 40
            while not fixtures.exists() or not fixtures.read_text():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
            demo = Demo(json.loads(fixtures.read_text()), folder / "state")
            with demo.client, demo.http:
                yield demo
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0


def picture(demo: Demo, image: openai.types.Image) -> bytes:
    """The bytes of one answer, in whichever form they came."""
    if image.b64_json:
        return base64.b64decode(image.b64_json, validate=True)
    assert image.url is not None
    return demo.http.get(image.url, headers={"Authorization": ""}).raise_for_status().content


@pytest.mark.parametrize("seller", SELLERS)
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_the_official_client_gets_its_picture_from_each_seller_in_either_form(
    demo: Demo, seller: str, form: Literal["url", "b64_json"]
) -> None:
    answer = demo.client.images.generate(
        prompt="a heron at dawn",
        size="512x512",
        response_format=form,
        extra_body={"providers": {"only": [seller]}},
    )
    assert answer.data is not None
    (image,) = answer.data
    assert (image.url is None, image.b64_json is None) == (form != "url", form != "b64_json")
    data = picture(demo, image)
    assert (probe(data).width, probe(data).height, complete(data)) == (512, 512, True)
    assert answer.model_extra is not None
    assert answer.model_extra["pixelgate"]["provider"] == seller


@pytest.mark.parametrize("seller", ["fal", "replicate"])
def test_sellers_that_call_back_find_the_door_and_their_signature_is_trusted(demo: Demo, seller: str) -> None:
    body = {"prompt": "a bell", "size": "512x512", "providers": {"only": [seller]}}
    demo.http.post("/images/generations", json=body).raise_for_status()
    stats = httpx.get(f"{demo.fixtures['sandbox_url']}/_sandbox/stats").raise_for_status().json()
    account = stats[seller][seller]
    assert account["webhooks"]["delivered"] >= 1
    assert account["leaked_keys"] == 0


def test_a_preview_is_schnell_and_its_export_earns_a_pro_model(demo: Demo) -> None:
    preview = demo.http.post("/images/generations", json={"prompt": "a paper boat", "seed": 7}).raise_for_status()
    body = preview.json()
    assert body["pixelgate"]["model"] == "flux-schnell"
    image = body["data"][0]
    export = demo.http.post(f"/images/{image['id']}/promote", json={"intent": "export"}).raise_for_status().json()
    assert export["data"][0]["parent"] == image["id"]
    assert export["data"][0]["seed"] == image["seed"] == 7
    assert export["pixelgate"]["model"] in {"flux-2-pro", "flux-1.1-pro"}
    record = demo.http.get(f"/images/{image['id']}").raise_for_status().json()
    assert export["data"][0]["id"] in json.dumps(record)


def test_ten_pictures_come_back_whole_and_each_with_its_own_seed(demo: Demo) -> None:
    answer = demo.client.images.generate(prompt="ten kites", size="256x256", n=10, response_format="b64_json")
    assert answer.data is not None
    assert len(answer.data) == 10
    assert len({image.model_extra["seed"] for image in answer.data if image.model_extra}) == 10
    assert all(complete(picture(demo, image)) for image in answer.data)


@pytest.mark.parametrize(("fmt", "compression"), [("png", None), ("jpeg", 60), ("webp", 80)])
def test_the_asked_format_is_the_format_that_comes(demo: Demo, fmt: str, compression: int | None) -> None:
    body = {"prompt": "a lamp", "size": "512x512", "output_format": fmt, "response_format": "b64_json"}
    answer = demo.http.post(
        "/images/generations", json=body | ({"output_compression": compression} if compression else {})
    )
    data = base64.b64decode(answer.raise_for_status().json()["data"][0]["b64_json"])
    assert probe(data).format == fmt


def test_the_decision_says_what_was_weighed_and_what_was_refused(demo: Demo) -> None:
    answer = demo.http.post("/images/generations", json={"prompt": "a bridge", "size": "512x512"}).raise_for_status()
    decision = demo.http.get(f"/decisions/{answer.headers['x-pixelgate-decision']}").raise_for_status().json()
    chosen = next(each for each in decision["candidates"] if each["offer"] == decision["chosen"])
    assert sum(chosen["costs"].values()) == min(sum(each["costs"].values()) for each in decision["candidates"])
    assert all(each["reason"] for each in decision["rejections"])
    assert [attempt["offer"] for attempt in decision["attempts"]] == [decision["chosen"]]


def test_errors_are_the_official_clients_own_classes(demo: Demo) -> None:
    generate = demo.client.images.generate
    with pytest.raises(openai.BadRequestError) as unsafe:
        generate(prompt=demo.fixtures["unsafe_prompt"])
    assert unsafe.value.code == "content_policy_violation"
    with pytest.raises(openai.NotFoundError):
        generate(prompt="x", model="no-such-model")
    with pytest.raises(openai.BadRequestError) as odd:
        generate(prompt="x", size="1030x1030")
    assert odd.value.code == "no_offer"
    with pytest.raises(openai.AuthenticationError):
        demo.client.with_options(api_key="pg_wrong_key").images.generate(prompt="x")
    with pytest.raises(openai.RateLimitError) as broke:
        demo.client.with_options(api_key=demo.fixtures["key_broke"]).images.generate(prompt="x")
    assert broke.value.code == "insufficient_quota"
    assert broke.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_the_official_client_gets_its_picture_from_openai_itself_too(
    demo: Demo, form: Literal["url", "b64_json"]
) -> None:
    answer = demo.client.images.generate(
        model="gpt-image-2-low:openai", prompt="a heron at dawn", size="1024x1024", response_format=form
    )
    assert answer.data is not None
    data = picture(demo, answer.data[0])
    assert (probe(data).width, probe(data).height, complete(data)) == (1024, 1024, True)
    assert answer.model_extra is not None
    assert answer.model_extra["pixelgate"]["provider"] == "openai"
    found = demo.run("ledger", "reconcile")
    assert found["suspended"] == 0
    assert answer.model_extra["pixelgate"]["nano_usd"] == openai_invoice(demo)[-1]


def openai_invoice(demo: Demo) -> list[int]:
    """What each order at OpenAI was billed, as the sandbox says."""
    lines = httpx.get(f"{demo.fixtures['sandbox_url']}/_sandbox/invoice?provider=openai").json()["lines"]
    return [line["nano_usd"] for line in lines]


def test_at_the_end_the_ledger_is_the_sellers_invoice(demo: Demo) -> None:
    for seller in SELLERS:
        body = {"prompt": "a last one", "size": "512x512", "providers": {"only": [seller]}}
        demo.http.post("/images/generations", json=body).raise_for_status()
    time.sleep(0.5)  # orders nobody waits for end by themselves
    found = demo.run("ledger", "reconcile")
    assert found["suspended"] == 0
    drift = found["drift_nano_usd"]
    assert isinstance(drift, dict)
    assert set(drift.values()) <= {0}
    assert int(str(found["orders"])) >= len(SELLERS)
