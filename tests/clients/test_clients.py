"""Every client of the cast, unchanged, against a running gateway: its pictures decode, its errors are its own."""

from __future__ import annotations

import base64
from collections.abc import Callable

import httpx
import pytest

from providers.picture import complete, probe
from tests.clients.cast import CAST, EDIT, Client
from tests.clients.conftest import Outcome

pytestmark = pytest.mark.timeout(600)  # the first test of a client installs it

PICTURES = [(name, case) for name, client in CAST.items() for case in client.pictures]
ERRORS = [(name, case) for name, client in CAST.items() for case in client.failures()]
PREVIEWED = [(name, "previewed") for name, client in CAST.items() if "previewed" in client.pictures]


@pytest.mark.parametrize(("name", "case"), PICTURES)
def test_its_pictures_decode_and_are_of_the_asked_size(
    name: str, case: str, outcomes: Callable[[str], dict[str, Outcome]]
) -> None:
    asked = CAST[name].pictures[case]
    outcome = outcomes(name)[case]
    assert outcome.error is None, outcome.error
    assert len(outcome.pictures) == asked.get("n", 1)
    for picture in outcome.pictures:
        assert picture.startswith("http://") == (asked["form"] == "url")
        data = _bytes(picture)
        found = probe(data)
        assert f"{found.width}x{found.height}" == asked["size"]
        assert found.format == asked.get("output_format", "png")
        assert complete(data)


@pytest.mark.parametrize(("name", "case"), PREVIEWED)
def test_its_stream_shows_a_preview_before_the_picture(
    name: str, case: str, outcomes: Callable[[str], dict[str, Outcome]]
) -> None:
    (partial,) = outcomes(name)[case].partials
    assert partial not in outcomes(name)[case].pictures
    assert complete(_bytes(partial))


@pytest.mark.parametrize(("name", "case"), ERRORS)
def test_its_errors_are_of_the_right_class(name: str, case: str, outcomes: Callable[[str], dict[str, Outcome]]) -> None:
    client = CAST[name]
    outcome = outcomes(name)[case]
    assert outcome.error is not None, f"{len(outcome.pictures)} pictures came"
    error = _official(client, outcome.error)
    kind, code = client.expected(case)
    assert kind in _list(error["classes"]), error
    assert code == error["code"] or (client.codes_in_words and _says(str(error["message"]), code)), error
    if client.statuses:
        assert error["status"] == client.statuses[case.removeprefix(EDIT)], error


def _says(message: str, code: str) -> bool:
    """Python's way of writing the body, or the body itself."""
    return f"'{code}'" in message or f'"{code}"' in message


def _official(client: Client, error: dict[str, object]) -> dict[str, object]:
    if not client.wraps:
        return error
    cause = error["cause"]
    assert isinstance(cause, dict), error
    return cause


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _bytes(picture: str) -> bytes:
    """As an app gets it: base64 without decoration, or fetched without a key."""
    if not picture.startswith("http://"):
        return base64.b64decode(picture, validate=True)
    answer = httpx.get(picture).raise_for_status()
    assert answer.headers["content-type"].startswith("image/")
    return answer.content
