"""A model that a known seller begins to sell is a file, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.settings import default_config
from tests.support.town import town

NEW = """
model: lighthouse-1
title: Lighthouse 1
tier: standard
licence: {name: fal.ai terms, commercial: true}
offers:
  - provider: fal
    endpoint: fal-ai/flux/krea
    price: {per_megapixel: $0.025, pixels: 1048576, rounding: up}
    abilities:
      sizes: {min: 256, max: 2048, multiple: 16}
      steps: {min: 1, max: 50, default: 28}
      safety_dialect: checker
    typical_seconds: 3.5
    source: the model's page
    checked_on: 2026-11-25
"""


async def test_a_new_model_of_a_known_seller_is_drawn_and_billed_from_its_file_alone(tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(default_config() / "catalog", config / "catalog")
    (config / "catalog" / "lighthouse-1.yaml").write_text(NEW)
    async with town(tmp_path / "state", config=config) as t:
        assert t.app.revision.catalog.models["lighthouse-1"].offers == ("fal:lighthouse-1",)
        delivery = await t.app.pipeline.serve(t.call(models=frozenset({"lighthouse-1"}), width=1040, height=1024))
        assert (delivery.offers, delivery.charge) == (("fal:lighthouse-1",), 50_000_000)
        await t.assert_books_agree()
