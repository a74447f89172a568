from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from gateway.yaml_files import MAX_BYTES, BadFile, Fault, load, read_bytes, read_whole


class Offer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    provider: Literal["fal", "together"]
    price: float | None = None


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    paid: bool = True
    offers: list[Offer] = []
    notes: dict[str, str] = {}


def faults(text: str) -> tuple[Fault, ...]:
    with pytest.raises(BadFile) as caught:
        read_bytes(text.encode(), "x.yaml").parse(Model)
    return caught.value.faults


def test_a_good_file_becomes_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: no\npaid: false\noffers:\n  - {provider: fal, price: 0.0027}\nnotes: {at: 12:30:45}\n")
    model = load(path, Model)
    assert model == Model(name="no", paid=False, offers=[Offer(provider="fal", price=0.0027)], notes={"at": "12:30:45"})


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_right_one() -> None:
    (fault,) = faults("name: a\noffers:\n  - provider: fal\n    prise: 3\n")
    assert (fault.line, fault.column, fault.hint) == (4, 5, "did you mean 'price'?")
    assert str(fault) == "x.yaml:4:5: unknown key 'prise'\n        prise: 3\n        ^\n    fix: did you mean 'price'?"


def test_a_wrong_value_is_pointed_at_with_the_nearest_accepted_one() -> None:
    (fault,) = faults("name: a\noffers: [{provider: fall}]\n")
    assert (fault.line, fault.column, fault.hint) == (2, 21, "did you mean 'fal'?")


def test_a_missing_key_points_at_where_it_belongs() -> None:
    (fault,) = faults("offers: []\n")
    assert "'name' is missing" in fault.message


def test_every_fault_of_a_file_is_reported_at_once() -> None:
    found = faults("nme: a\noffers:\n  - provider: fall\n  - price: cheap\n")
    assert [fault.line for fault in found] == [1, 3, 4, 4]


def test_a_misspelt_key_that_must_be_there_is_one_fault() -> None:
    (fault,) = faults("nmae: a\n")
    assert (fault.message, fault.hint) == ("unknown key 'nmae'", "did you mean 'name'?")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("name: a\nname: b\n", 2, "duplicate key"),
        ("name: &a x\n", 1, "anchors"),
        ("name: *a\n", 1, "aliases"),
        ("name: !!python/object:os.system x\n", 1, "tags"),
        ("notes:\n  <<: {a: b}\n", 2, "merge keys"),
        ("name: a\n---\nname: b\n", 2, "second document"),
        ("name: [a\n", 2, "expected"),
        ("name: " + "[" * 40, 1, "nested deeper"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("? {a: b}\n: c\n", 1, "cannot be a key"),
        ("name: 2026-02-31\n", 1, "day is out of range"),
        ("notes:\n  port: 0800\n", 2, "octal to some readers"),
        ("notes:\n\tport: a\n", 2, "cannot start any token"),
        ("notes: {a: " + "9" * 99 + "}\n", 1, "99 digits"),
        ("a: \x07\n", 1, "is not YAML"),
    ],
)
def test_what_yaml_allows_but_people_should_not_use_is_refused(text: str, line: int, says: str) -> None:
    (fault,) = faults(text)
    assert says in fault.message
    assert fault.line == line


def test_a_file_that_is_too_large_is_refused() -> None:
    assert "larger than" in faults("#" * (MAX_BYTES + 1))[0].message


def test_a_file_that_is_not_text_is_refused_with_the_line() -> None:
    with pytest.raises(BadFile) as caught:
        read_bytes(b"name: a\nx: \xff\n", "x.yaml")
    assert (caught.value.faults[0].line, caught.value.faults[0].column) == (2, 4)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: a\n")

    class Slow(io.BufferedReader):
        def read(self, size: int | None = -1) -> bytes:
            got = super().read(size)
            with path.open("a") as other:
                other.write("paid: false\n")
            return got

    with Slow(io.FileIO(path)) as file, pytest.raises(BadFile, match="changed while it was being read"):
        read_whole(file, str(path))


def test_words_that_other_readers_take_for_something_else_are_remembered() -> None:
    document = read_bytes(b"name: no\nnotes: {on: a, b: 1:30, c: 'off'}\n", "x.yaml")
    assert [(trap.line, trap.column, trap.level) for trap in document.traps] == [
        (1, 7, "warning"),
        (2, 9, "warning"),
        (2, 19, "warning"),
    ]


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml", Model)


def test_faults_found_later_get_their_place_too() -> None:
    document = read_bytes(b"offers:\n  - provider: fal\n    price: 3\n", "x.yaml")
    fault = document.fault(("offers", 0, "price"), "too dear")
    assert (fault.line, fault.column, fault.text) == (3, 12, "    price: 3")
    assert document.fault(("offers", 0, "size", "min"), "is missing").line == 2


@given(st.binary(max_size=300) | st.text(alphabet="a:-[]{}&*!#|>'\"\n\t ?,<%@`0", max_size=80).map(str.encode))
def test_no_bytes_raise_anything_but_a_readable_fault(raw: bytes) -> None:
    try:
        read_bytes(raw, "x.yaml").parse(Model)
    except BadFile as error:
        shown = str(error)
    else:
        shown = "x.yaml"
    assert shown.startswith("x.yaml")
