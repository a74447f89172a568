from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sealing import PATTERN, BadMaster, check_master, fresh_master, seal, unseal

MASTER, OTHER = fresh_master(), fresh_master()
keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200)


@given(key=keys)
@settings(max_examples=30)
def test_what_is_sealed_opens_for_its_account_alone_and_shows_nothing_of_the_key(key: str) -> None:
    sealed = seal(MASTER, "acme-fal", key)
    assert unseal(MASTER, "acme-fal", sealed) == key
    assert unseal(MASTER, "zeta-fal", sealed) is None
    assert unseal(OTHER, "acme-fal", sealed) is None
    assert len(key) < 8 or key not in sealed
    assert seal(MASTER, "acme-fal", key) != sealed


@given(at=st.integers(min_value=0, max_value=10_000), letter=st.sampled_from("AZaz09"))
@settings(max_examples=30)
def test_what_was_altered_does_not_open(at: int, letter: str) -> None:
    sealed = seal(MASTER, "acme-fal", "key")
    at %= len(sealed) - 2  # the last digits are filling
    altered = f"{sealed[:at]}{letter}{sealed[at + 1 :]}"
    assert altered == sealed or unseal(MASTER, "acme-fal", altered) is None


def test_a_fresh_master_key_before_the_old_one_seals_and_both_open() -> None:
    before = seal(OTHER, "acme-fal", "key")
    both = f"{MASTER}, {OTHER}"
    assert unseal(both, "acme-fal", before) == "key"
    assert unseal(MASTER, "acme-fal", seal(both, "acme-fal", "key")) == "key"


@pytest.mark.parametrize(
    "master", ["", "secret", MASTER + ",", MASTER[:-4]], ids=["none", "no key", "one too few", "cut off"]
)
def test_what_is_no_master_key_is_told(master: str) -> None:
    with pytest.raises(BadMaster, match="32 bytes"):
        check_master(master)


def test_what_is_sealed_looks_as_settings_expect() -> None:
    assert re.fullmatch(PATTERN, seal(MASTER, "acme-fal", "key"))
