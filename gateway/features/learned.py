"""Learned measures of pictures: LPIPS, CLIP and an aesthetic score, where their models lie in a folder as ONNX files.

    lpips.onnx        two pictures -> their distance
    clip_image.onnx   a picture -> its embedding
    clip_text.onnx    tokens -> the embedding of a prompt, in the same space; tokenizer.json beside it
    aesthetic.onnx    an embedding of clip_image.onnx, scaled to length 1 -> how beautiful

They run on the CPU, in one thread, with the extra `shadow` (onnxruntime, tokenizers). Whatever is not there, the extra
included, is measured by nobody and missed by nobody; `missing` says it. A file that is no such model is told once.
Shapes and normalisation: docs/how-to/compare-providers.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Learned: TypeAlias = Literal["lpips", "clip_likeness", "clip", "aesthetic"]
Floats: TypeAlias = NDArray[np.float32]

FILES: Mapping[Learned, tuple[str, ...]] = {
    "lpips": ("lpips.onnx",),
    "clip_likeness": ("clip_image.onnx",),
    "clip": ("clip_image.onnx", "clip_text.onnx", "tokenizer.json"),
    "aesthetic": ("clip_image.onnx", "aesthetic.onnx"),
}
"""Measure -> the files it takes."""
PACKAGES: Mapping[Learned, tuple[str, ...]] = {
    "lpips": ("onnxruntime",),
    "clip_likeness": ("onnxruntime",),
    "clip": ("onnxruntime", "tokenizers"),
    "aesthetic": ("onnxruntime",),
}
LPIPS_SIDE = 256
"""Pixels of a side that LPIPS looks at, where its model leaves that open."""
CLIP_SIDE = 224
CLIP_TOKENS = 77
"""Tokens of a prompt that CLIP reads; the rest of a longer one counts for nothing."""

_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_CLIP_SPREAD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
"""Of red, green and blue from 0 to 1, in the pictures that CLIP was trained on (Radford et al. 2021)."""
_END_OF_TEXT = "<|endoftext|>"


class BadModel(Exception):
    """A file in the folder of models is not the model it is called after; the message says why."""


class LearnedMeasures:
    """The models of a folder, each loaded when it is first needed and kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults: dict[Learned, str] = {}
        """Measures that were tried and failed, and why."""
        self._untold: dict[Learned, str] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<LearnedMeasures {self._folder}>"

    @property
    def missing(self) -> Mapping[Learned, str]:
        """Measures that are not taken here, and why not."""
        return {name: why for name in FILES if (why := self._faults.get(name) or self._absent(name)) is not None}

    @property
    def reads_prompts(self) -> bool:
        """Whether a prompt is of any use."""
        return "clip" not in self.missing

    def untold(self) -> Mapping[Learned, str]:
        """Measures whose files are no such models, and why; each once."""
        found, self._untold = self._untold, {}
        return found

    def measures(self, champion: Image, challenger: Image, prompt: str | None) -> Mapping[str, float]:
        """What can be said of two pictures (RGB); without a prompt nothing of how well they keep to it.

        lpips            distance as people see it: 0 alike, about 0.7 unrelated
        clip_likeness    cosine of both embeddings: 1 alike
        clip_champion, clip_challenger              100 x cosine of picture and prompt: 20 to 35 where they fit
        aesthetic_champion, aesthetic_challenger    what the model says, usually 1 to 10
        clip, aesthetic                             the challenger's less the champion's
        """
        found: dict[str, float] = {}
        missing = self.missing
        both = _Both(champion, challenger, lambda: self._clip_image)
        with self._lock:
            for name in FILES:
                if name in missing or (name == "clip" and not prompt):
                    continue
                try:
                    found |= self._measured(name, both, prompt or "")
                except Exception as error:  # noqa: BLE001 - neither onnxruntime nor tokenizers has a class of its own
                    self._faults[name] = f"{' and '.join(FILES[name])}: {str(error)[:300] or type(error).__name__}"
                    self._untold[name] = self._faults[name]
        return found

    def _absent(self, name: Learned) -> str | None:
        files = [file for file in FILES[name] if not (self._folder / file).is_file()]
        if files:
            return f"{' and '.join(files)} {'are' if len(files) > 1 else 'is'} not in {self._folder}"
        if any(find_spec(package) is None for package in PACKAGES[name]):
            return "the extra is not installed: pip install 'pixelgate[shadow]'"
        return None

    def _measured(self, name: Learned, both: _Both, prompt: str) -> Mapping[str, float]:
        if name == "lpips":
            return {"lpips": self._lpips.distance(both.champion, both.challenger)}
        ours, theirs = both.embeddings
        if name == "clip_likeness":
            return {"clip_likeness": float(ours @ theirs)}
        if name == "clip":
            words = self._clip_text.embedding(prompt)
            return _compared("clip", 100 * float(ours @ words), 100 * float(theirs @ words))
        return _compared("aesthetic", self._aesthetic.score(ours), self._aesthetic.score(theirs))

    @cached_property
    def _lpips(self) -> _Lpips:
        return _Lpips(self._folder / "lpips.onnx")

    @cached_property
    def _clip_image(self) -> _ClipImage:
        return _ClipImage(self._folder / "clip_image.onnx")

    @cached_property
    def _clip_text(self) -> _ClipText:
        return _ClipText(self._folder / "clip_text.onnx", self._folder / "tokenizer.json")

    @cached_property
    def _aesthetic(self) -> _Aesthetic:
        return _Aesthetic(self._folder / "aesthetic.onnx")


class _Model:
    """An ONNX file, on the CPU and in one thread: live calls have the others."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone; they are raised as well
        self.name = file.name
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.inputs: Mapping[str, Any] = {each.name: each for each in self._session.get_inputs()}

    def ranked(self, rank: int, wanted: int) -> list[str]:
        """The inputs of so many dimensions, in the order of the file; raises `BadModel` where it has others."""
        found = [name for name, each in self.inputs.items() if len(each.shape) == rank]
        if len(found) != wanted or len(self.inputs) != wanted:
            shapes = ", ".join(f"{name} {list(each.shape)}" for name, each in self.inputs.items())
            raise BadModel(f"takes {shapes}, and not {wanted} of {rank} dimensions")
        return found

    def side(self, name: str, usual: int) -> int:
        """Pixels of a side of the pictures that an input takes; raises `BadModel` for oblong ones."""
        _, colours, height, width = self.inputs[name].shape
        if isinstance(colours, int) and colours != 3:
            raise BadModel(f"{name} is not batch x 3 x height x width")
        if isinstance(height, int) and isinstance(width, int) and height != width:
            raise BadModel(f"{name} takes pictures of {width}x{height}; only squares are shown")
        return height if isinstance(height, int) else usual

    def run(self, given: Mapping[str, NDArray[Any]], output: str | None = None) -> Floats:
        """What comes out by a name, or all that comes out where it is one thing; raises `BadModel`."""
        names = [each.name for each in self._session.get_outputs()]
        if output not in names:
            if len(names) != 1:
                raise BadModel(f"gives {', '.join(names)}, and nothing called {output}")
            output = names[0]
        (told,) = self._session.run([output], dict(given))
        found: Floats = np.asarray(told, dtype=np.float32)
        if not np.isfinite(found).all():
            raise BadModel("gives figures that are none")
        return found

    def number(self, given: Mapping[str, NDArray[Any]]) -> float:
        """The one figure that comes out; raises `BadModel`."""
        told = self.run(given)
        if told.size != 1:
            raise BadModel(f"gives {told.size} figures, and not one")
        return float(told.ravel()[0])

    def embedding_of(self, given: Mapping[str, NDArray[Any]], output: str) -> Floats:
        """What comes out, scaled to length 1; raises `BadModel`."""
        told = self.run(given, output)
        if told.ndim != 2 or told.shape[0] != 1:
            raise BadModel(f"gives {list(told.shape)}, and not 1 x width")
        embedding: Floats = told[0] / max(float(np.linalg.norm(told[0])), 1e-12)
        return embedding


class _Lpips(_Model):
    def distance(self, one: Image, other: Image) -> float:
        names = self.ranked(4, 2)
        side = self.side(names[0], LPIPS_SIDE)
        shown = [_planes(each.resize((side, side), reducing_gap=2.0)) * 2 - 1 for each in (one, other)]
        return self.number(dict(zip(names, shown, strict=True)))


class _ClipImage(_Model):
    def embedding(self, picture: Image) -> Floats:
        (name,) = self.ranked(4, 1)
        planes = _planes(_middle(picture, self.side(name, CLIP_SIDE)))
        shown = (planes - _CLIP_MEAN[:, None, None]) / _CLIP_SPREAD[:, None, None]
        return self.embedding_of({name: shown}, "image_embeds")


class _ClipText(_Model):
    def __init__(self, file: Path, tokenizer: Path) -> None:
        from tokenizers import Tokenizer

        super().__init__(file)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        tokens = self.inputs.get("input_ids")
        if tokens is None or self.inputs.keys() - {"input_ids", "attention_mask"}:
            raise BadModel(f"takes {', '.join(self.inputs)}, and not input_ids with or without attention_mask")
        length = tokens.shape[-1]
        self._length = length if isinstance(length, int) else None
        self._tokenizer.enable_truncation(self._length or CLIP_TOKENS)
        if self._length is not None and self._tokenizer.padding is None:
            end = self._tokenizer.token_to_id(_END_OF_TEXT)
            self._tokenizer.enable_padding(length=self._length, pad_id=end or 0, pad_token=_END_OF_TEXT)

    def embedding(self, prompt: str) -> Floats:
        told = self._tokenizer.encode(prompt)
        given = {"input_ids": self._row("input_ids", told.ids)}
        if "attention_mask" in self.inputs:
            given["attention_mask"] = self._row("attention_mask", told.attention_mask)
        return self.embedding_of(given, "text_embeds")

    def _row(self, name: str, values: Sequence[int]) -> NDArray[Any]:
        return np.array([values], dtype=np.int32 if "int32" in self.inputs[name].type else np.int64)


class _Both:
    """Two pictures, and what CLIP makes of them, which takes longest and is asked for three times."""

    def __init__(self, champion: Image, challenger: Image, clip: Callable[[], _ClipImage]) -> None:
        self.champion = champion
        self.challenger = challenger
        self._clip = clip

    @cached_property
    def embeddings(self) -> tuple[Floats, Floats]:
        return self._clip().embedding(self.champion), self._clip().embedding(self.challenger)


class _Aesthetic(_Model):
    def score(self, embedding: Floats) -> float:
        (name,) = self.ranked(2, 1)
        return self.number({name: embedding[None, :]})


def _compared(name: str, champion: float, challenger: float) -> Mapping[str, float]:
    return {f"{name}_champion": champion, f"{name}_challenger": challenger, name: challenger - champion}


def _middle(picture: Image, side: int) -> Image:
    """The shorter side scaled, the middle of the longer one cut out: what CLIP was shown."""
    from PIL import Image as Pillow

    width, height = (side * each // min(picture.size) for each in picture.size)
    scaled = picture.resize((width, height), Pillow.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return scaled.crop((left, top, left + side, top + side))


def _planes(picture: Image) -> Floats:
    """1 x 3 x height x width, from 0 to 1."""
    planes: Floats = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    return planes
