"""The how-to is followed to the letter: its files are written, the module keeps every promise and draws a picture."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gateway.app import build
from gateway.ids import new_id
from gateway.requests.call import Call
from gateway.settings import Settings, default_config
from gateway.yaml_files import load, read_bytes
from policies.catalog_file import ModelFile
from policies.types import Constraints
from providers import registry
from providers.conformance import Case, check
from providers.contract import ImageRequest, Order
from providers.transport import Http
from tests.support.town import CALLER

PAGE = (Path(__file__).parents[2] / "docs/how-to/add-a-provider.md").read_text(encoding="utf-8")
FILES: Mapping[str, str] = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the four files of the page, on Python's path."""
    shutil.copytree(default_config() / "catalog", tmp_path / "config" / "catalog")
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
        del sys.modules[name]


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    made = Http()
    yield made
    await made.aclose()


def test_the_page_holds_a_module_its_twin_an_account_and_an_offer() -> None:
    assert list(FILES) == ["acme/lumen.py", "acme/lumen_twin.py", "config/gateway.yaml", "config/catalog/lumen-1.yaml"]


async def test_the_module_keeps_every_promise(folder: Path, http: Http) -> None:
    (offer,) = load(folder / "config/catalog/lumen-1.yaml", ModelFile).offers
    request = ImageRequest(prompt="a quiet harbour at dawn", width=512, height=512, count=2, seed=100)
    order = Order(
        attempt_id="a", endpoint=offer.endpoint, abilities=offer.abilities.abilities(), request=request, timeout=10
    )
    twins: Any = import_module("acme.lumen_twin")
    async with twins.LumenTwin(http) as twin:
        provider = registry.connect(offer.provider, "lumen", {"key": twin.key, "base_url": twin.url}, http)
        assert await check(Case(provider, twin, order)) == []


async def test_the_gateway_draws_with_it_and_the_books_agree(folder: Path, http: Http) -> None:
    typed: Any = read_bytes(FILES["config/gateway.yaml"].encode(), "gateway.yaml").data
    twins: Any = import_module("acme.lumen_twin")
    async with twins.LumenTwin(http) as twin:
        account = {**typed["accounts"]["lumen"], "key": twin.key, "base_url": twin.url}
        app = await build(
            Settings.model_validate(
                {"accounts": {"lumen": account}, "config": folder / "config", "state": folder / "state"}
            )
        )
        await app.start()
        try:
            call = Call(
                id=new_id("call"),
                caller=CALLER,
                request=ImageRequest(prompt="a lighthouse", width=512, height=512),
                constraints=Constraints(models=frozenset({"lumen-1"})),
                arrived=app.clock.now(),
            )
            delivery = await app.pipeline.serve(call)
            await app.idle()
            assert (delivery.offers, delivery.charge) == (("lumen:lumen-1",), 20_000_000)
            assert [row.cost for row in await app.db.attempts(call.id)] == [await twin.billed()] == [20_000_000]
        finally:
            await app.stop()
