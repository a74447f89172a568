"""Learned measures: real models, run by the real runtime, where they are; and quiet where they are not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from gateway.features import learned
from gateway.features.learned import LearnedMeasures
from gateway.features.measuring import Measuring
from policies.experiments.definition import Challenger
from providers.sandbox import start
from tests.support import models
from tests.support.town import TIME_SCALE, settings
from tests.support.trials import experiment, open_trial

RED, GREEN, BLUE = (Image.new("RGB", (64, 48), colour) for colour in ((250, 20, 20), (20, 250, 20), (20, 20, 250)))


def test_the_picture_of_what_was_asked_for_is_nearer_to_its_prompt(tmp_path: Path) -> None:
    here = LearnedMeasures(models.all_of_them(tmp_path))
    found = here.measures(RED, BLUE, "a red wall")
    assert here.missing == {}
    assert found["clip_champion"] > 50
    assert found["clip_challenger"] < 0
    assert found["clip"] == pytest.approx(found["clip_challenger"] - found["clip_champion"])
    assert found["aesthetic_champion"] > 5 > found["aesthetic_challenger"]
    assert found["clip_likeness"] < 0.5
    assert found["lpips"] == pytest.approx(2 * (230 + 230) / 255 / 3, abs=0.01)


def test_the_same_picture_twice_is_alike_in_everything(tmp_path: Path) -> None:
    found = LearnedMeasures(models.all_of_them(tmp_path)).measures(GREEN, GREEN, "a green wall")
    assert found["lpips"] == found["clip"] == found["aesthetic"] == 0
    assert found["clip_likeness"] == pytest.approx(1)


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize("mask", [True, False])
def test_a_prompt_is_padded_or_cut_to_the_length_that_a_model_takes(tmp_path: Path, kind: int, *, mask: bool) -> None:
    models.clip(tmp_path, length=8, kind=kind, mask=mask)
    here = LearnedMeasures(tmp_path)
    short = here.measures(RED, BLUE, "red")
    long = here.measures(RED, BLUE, "red " * 100)
    assert short["clip"] == pytest.approx(long["clip"], abs=1e-3)
    assert short["clip"] < -50
    assert set(here.missing) == {"lpips", "aesthetic"}


def test_without_a_prompt_nothing_is_said_of_it(tmp_path: Path) -> None:
    found = LearnedMeasures(models.all_of_them(tmp_path)).measures(RED, BLUE, None)
    assert "clip" not in found
    assert {"lpips", "clip_likeness", "aesthetic"} <= found.keys()


def test_a_picture_is_shown_to_clip_once_whatever_is_measured_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Image.Image] = []
    embedding = learned._ClipImage.embedding

    def counted(model: learned._ClipImage, picture: Image.Image) -> learned.Floats:
        shown.append(picture)
        return embedding(model, picture)

    monkeypatch.setattr(learned._ClipImage, "embedding", counted)
    LearnedMeasures(models.all_of_them(tmp_path)).measures(RED, BLUE, "red")
    assert shown == [RED, BLUE]


@pytest.mark.parametrize("size", [(100, 303), (303, 100), (17, 16), (1025, 1024)])
def test_clip_sees_the_middle_of_a_picture_whole_and_nothing_beside_it(size: tuple[int, int]) -> None:
    (width, height), side = size, min(size)
    left, top = (width - side) // 2, (height - side) // 2
    picture = Image.new("RGB", size, (255, 0, 0))
    picture.paste((0, 255, 0), (left, top, left + side + 1, top + side + 1))
    seen = np.asarray(learned._middle(picture, 16))
    assert seen.shape == (16, 16, 3)
    assert (seen[1:-1, 1:-1] == (0, 255, 0)).all()


def test_an_empty_folder_is_no_fault(tmp_path: Path) -> None:
    here = LearnedMeasures(tmp_path / "nowhere")
    assert here.measures(RED, BLUE, "red") == {}
    assert here.untold() == {}
    assert not here.reads_prompts
    assert (
        here.missing["clip"] == f"clip_image.onnx and clip_text.onnx and tokenizer.json are not in {tmp_path}/nowhere"
    )


def test_without_the_extra_nothing_is_loaded_and_nothing_is_complained_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "find_spec", lambda _: None)
    here = LearnedMeasures(models.all_of_them(tmp_path))
    assert here.measures(RED, BLUE, "red") == {}
    assert here.untold() == {}
    assert set(here.missing.values()) == {"the extra is not installed: pip install 'pixelgate[shadow]'"}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "lpips.onnx").write_bytes(b"no model"), "lpips.onnx: "),
        (lambda folder: models.lpips(folder, inputs=3), "lpips.onnx: takes in0 [1, 3, 16, 16], in1"),
    ],
)
def test_a_file_that_is_no_such_model_is_told_once_and_the_others_measure_on(
    tmp_path: Path, spoil: object, why: str
) -> None:
    assert callable(spoil)
    here = LearnedMeasures(models.all_of_them(tmp_path))
    spoil(tmp_path)
    found = [here.measures(RED, BLUE, "red") for _ in range(2)]
    assert [sorted(each) for each in found] == [sorted(found[0])] * 2
    assert "lpips" not in found[0]
    assert "clip" in found[0]
    assert list(here.untold()) == ["lpips"]
    assert here.untold() == {}
    assert here.missing["lpips"].startswith(why)


async def test_the_prompt_is_read_from_the_live_call_as_long_as_it_is_kept_and_stored_nowhere_else(
    tmp_path: Path,
) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        folder = models.all_of_them(tmp_path / "models")
        terms = settings(tmp_path, sandbox.url, shadow={"models": folder})
        t = await open_trial(tmp_path, sandbox, experiment(Challenger(name="again", account="fal")), terms=terms)
        try:
            await t.asks(prompt="a red boat")
            await t.pairs(1)
            await t.app.measuring.some(10)
            await t.asks(prompt="a blue boat")
            await t.pairs(2)
            await t.app.db.drop_recipes(t.app.clock.utc() + timedelta(hours=1), team=None)
            await t.app.measuring.some(10)
            kept, forgotten = await t.pairs(2)
        finally:
            await t.app.stop()
    assert kept.measures["clip"] == pytest.approx(0, abs=0.01)  # the sandbox draws the same for the same words and seed
    assert "clip_champion" in kept.measures
    assert "clip" not in forgotten.measures
    assert "lpips" in forgotten.measures
    assert b"a red boat" not in b"".join(row for row in _pairs_as_stored(tmp_path / "pixelgate.db"))


async def test_pairs_are_measured_again_where_a_model_has_come(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        t = await open_trial(
            tmp_path,
            sandbox,
            experiment(Challenger(name="again", account="fal")),
            terms=settings(tmp_path, sandbox.url),
        )
        try:
            await t.asks(prompt="a red boat")
            (pair,) = await t.pairs()
            while await t.app.measuring.some(10):
                pass
            (before,) = await t.pairs()
            later = Measuring(t.app.db, t.app.assets, LearnedMeasures(models.all_of_them(tmp_path / "models")))
            assert await later.some(10) == 0
            await later.again(pair.experiment)
            assert await later.some(10) == 1
            (after,) = await t.pairs()
        finally:
            await t.app.stop()
    assert "lpips" not in before.measures
    assert after.measures["lpips"] == pytest.approx(0, abs=0.01)
    assert before.measures["ssim"] == after.measures["ssim"]


def _pairs_as_stored(file: Path) -> list[bytes]:
    with closing(sqlite3.connect(file)) as database:
        return [part for row in database.execute("SELECT body, measures FROM shadow_pairs") for part in row]
