"""Headers of PNG, JPEG and WebP, whole and broken, and what a delivery owes."""

from __future__ import annotations

import io
from typing import Literal

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image as Pillow

from providers.contract import Abilities, Head, ImageRequest, Input, Order, Tokens
from providers.errors import BadDelivery, Unsupported
from providers.picture import (
    NotAPicture,
    Piece,
    complete,
    data_uri,
    deliver,
    format_of,
    input_fields,
    probe,
    requested,
    steps_of,
)


def draw(kind: str, width: int, height: int, **how: object) -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((width, height), 80).convert("RGB").save(out, kind, **how)
    return out.getvalue()


def order(*, count: int = 1, size: tuple[int, int] = (64, 48), **abilities: object) -> Order:
    request = ImageRequest(prompt="a lake", width=size[0], height=size[1], count=count)
    able = Abilities(**abilities)  # type: ignore[arg-type]  # the caller names abilities one by one
    return Order(attempt_id="a1", endpoint="e", abilities=able, request=request, timeout=5)


WHOLE = {
    "png": draw("png", 64, 48),
    "jpeg": draw("jpeg", 64, 48),
    "progressive": draw("jpeg", 64, 48, progressive=True),
    "webp": draw("webp", 64, 48),
    "lossless": draw("webp", 64, 48, lossless=True),
    "extended": draw("webp", 64, 48, exif=b"Exif\x00\x00sandbox"),
}
FORMATS: dict[str, Literal["png", "jpeg", "webp"]] = {
    "png": "png",
    "jpeg": "jpeg",
    "progressive": "jpeg",
    "webp": "webp",
    "lossless": "webp",
    "extended": "webp",
}


@pytest.mark.parametrize("kind", WHOLE)
def test_reads_format_and_size_from_the_header(kind: str) -> None:
    assert probe(WHOLE[kind]) == Head(FORMATS[kind], 64, 48)
    assert complete(WHOLE[kind])


@pytest.mark.parametrize("kind", WHOLE)
def test_a_picture_cut_anywhere_is_not_complete(kind: str) -> None:
    whole = WHOLE[kind]
    assert not any(complete(whole[:size]) for size in range(0, len(whole) - 1, 7))


def test_a_png_with_one_flipped_bit_is_not_complete() -> None:
    spoilt = bytearray(WHOLE["png"])
    spoilt[len(spoilt) // 2] ^= 1
    assert not complete(bytes(spoilt))


def test_bytes_behind_the_end_do_no_harm() -> None:
    assert complete(WHOLE["png"] + b"x")
    assert complete(WHOLE["jpeg"] + b"x")


@pytest.mark.parametrize("data", [b"", b"<html>busy</html>", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9"])
def test_everything_else_is_not_a_picture(data: bytes) -> None:
    with pytest.raises(NotAPicture):
        probe(data)
    assert not complete(data)


@given(st.sampled_from(sorted(WHOLE)), st.binary(max_size=40), st.integers(0, 80), st.integers(0, 80))
def test_hostile_bytes_never_raise_anything_else(kind: str, noise: bytes, at: int, cut: int) -> None:
    data = WHOLE[kind][:at] + noise + WHOLE[kind][at + cut :]
    complete(data)
    try:
        head = probe(data)
    except NotAPicture:
        return
    assert head.width > 0
    assert head.height > 0


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP"]), st.binary(max_size=200))
def test_random_bodies_behind_a_right_signature_never_raise_anything_else(magic: bytes, noise: bytes) -> None:
    complete(magic + noise)
    try:
        probe(magic + noise)
    except NotAPicture:
        return


def test_a_right_delivery_is_passed_on_with_measured_sizes() -> None:
    generation = deliver(order(), [Piece(data=WHOLE["png"], seed=7, flagged=True)], run_s=1.5)
    assert generation.usage.images == ((64, 48),)
    assert (generation.images[0].seed, generation.images[0].flagged, generation.run_s) == (7, True, 1.5)


def test_too_few_pictures_owe_what_was_made() -> None:
    with pytest.raises(BadDelivery, match="2 pictures instead of 4") as caught:
        deliver(order(count=4), [Piece(data=WHOLE["png"])] * 2)
    assert caught.value.owed == requested(order(), 2)


def test_too_many_pictures_owe_what_was_made() -> None:
    with pytest.raises(BadDelivery, match="5 pictures instead of 4") as caught:
        deliver(order(count=4), [Piece(data=WHOLE["png"])] * 5)
    assert caught.value.owed == requested(order(), 5)


def test_a_wrong_size_owes_the_measured_pixels() -> None:
    with pytest.raises(BadDelivery, match="64x48 instead of 48x64") as caught:
        deliver(order(size=(48, 64)), [Piece(data=WHOLE["png"], declared=(48, 64))])
    assert caught.value.owed == requested(order())


@pytest.mark.parametrize(("declared", "size"), [((32, 32), (32, 32)), (None, (64, 48))])
def test_an_unreadable_picture_owes_its_declared_else_its_ordered_size(
    declared: tuple[int, int] | None, size: tuple[int, int]
) -> None:
    with pytest.raises(BadDelivery, match="none at all") as caught:
        deliver(order(), [Piece(data=b"<html>", declared=declared)])
    assert caught.value.owed == requested(order(size=size))


def test_steps_and_format_follow_abilities() -> None:
    assert steps_of(order(steps=(1, 12), default_steps=4)) == 4
    assert steps_of(order(default_steps=4)) is None
    assert format_of(order(formats=("jpeg", "png"))) == "png"
    assert format_of(order(formats=("webp",))) == "webp"


def test_what_is_owed_counts_the_inputs_too() -> None:
    asked = order()
    worked_from = replace(asked, request=replace(asked.request, references=((640, 480), (32, 32))))
    generation = deliver(worked_from, [Piece(data=WHOLE["png"])], tokens=Tokens(text_in=9, image_out=272))
    assert generation.usage == replace(requested(worked_from), tokens=Tokens(text_in=9, image_out=272))
    assert generation.usage.references == ((640, 480), (32, 32))


def test_an_input_fits_into_a_url() -> None:
    head, _, body = data_uri(Input(WHOLE["jpeg"], probe(WHOLE["jpeg"]))).partition(",")
    assert (head, pybase64.b64decode(body)) == ("data:image/jpeg;base64", WHOLE["jpeg"])


def test_inputs_go_into_the_field_an_endpoint_takes_them_in() -> None:
    one = order(references=(1, 1), input_dialect="image_url")
    assert input_fields(one, ["a"]) == {"image_url": "a"}
    assert input_fields(order(references=(0, 4), input_dialect="image_urls"), ["a"]) == {"image_urls": ["a"]}
    assert input_fields(order(), []) == {}
    for wrong, urls in ((one, []), (one, ["a", "b"]), (order(), ["a"])):
        with pytest.raises(Unsupported):
            input_fields(wrong, urls)
