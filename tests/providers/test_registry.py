"""Kinds of sellers are found by name and imported on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from providers import registry
from providers.transport import Http


def test_lists_the_shipped_kinds() -> None:
    assert set(registry.kinds()) == {"fal", "openai", "replicate", "selfhosted", "together"}


def test_listing_and_importing_the_registry_loads_no_sdk() -> None:
    script = (
        "import sys; from providers import registry; registry.kinds();"
        "print([m for m in ('fal_client', 'together', 'replicate', 'httpx', 'openai', 'PIL') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


async def test_connects_by_kind() -> None:
    http = Http()
    provider = registry.connect("selfhosted", "garage", {"base_url": "http://127.0.0.1:1"}, http)
    assert provider.name == "garage"
    await provider.aclose()
    await http.aclose()


def test_a_misspelt_kind_is_met_with_the_nearest() -> None:
    with pytest.raises(registry.UnknownKind, match="did you mean `together`"):
        registry.settings_of("togehter")


def test_a_strange_kind_is_met_with_all_that_exist() -> None:
    with pytest.raises(registry.UnknownKind, match="known are fal, openai, replicate, selfhosted, together"):
        registry.settings_of("xyzzy")


@pytest.mark.parametrize(("path", "why"), [("no.such.module", "not installed"), ("email.utils", "needs `Settings`")])
def test_a_dotted_path_must_lead_to_a_provider(path: str, why: str) -> None:
    with pytest.raises(registry.UnknownKind, match=why):
        registry.settings_of(path)


async def test_wrong_settings_are_all_named_and_no_value_is_shown() -> None:
    http = Http()
    with pytest.raises(ValidationError) as caught:
        registry.connect("selfhosted", "garage", {"base_url": "ftp://secret", "colour": 1}, http)
    assert {fault["loc"] for fault in caught.value.errors()} == {("base_url",), ("colour",)}
    assert "secret" not in str(caught.value)
    await http.aclose()
