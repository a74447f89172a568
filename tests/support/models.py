"""Models of learned measures, so small that one sees what they say: real ONNX files, of the formats people export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = {"red": (2.0, -1.0, -1.0), "green": (-1.0, 2.0, -1.0), "blue": (-1.0, -1.0, 2.0)}
"""A prompt's embedding is the mean of these; of a picture it is the mean colour, so a red one is near to `red`."""
SIDE = 16


def lpips(folder: Path, *, inputs: int = 2) -> Path:
    """The mean distance of two pictures from -1 to 1: 0 to 2, and 1 x 1 x 1 x 1 as LPIPS has it."""
    names = ["in0", "in1", "in2"][:inputs]
    nodes = [
        helper.make_node("Sub", ["in0", "in1"], ["gap"]),
        helper.make_node("Abs", ["gap"], ["far"]),
        helper.make_node("ReduceMean", ["far"], ["out"], keepdims=1),
    ]
    shown = [_floats(name, [1, 3, SIDE, SIDE]) for name in names]
    return _written(folder / "lpips.onnx", nodes, shown, [_floats("out", [1, 1, 1, 1])])


def clip(folder: Path, *, length: int | None = None, kind: int = TensorProto.INT64, mask: bool = True) -> None:
    """Both halves of CLIP, and a tokenizer of four words; of prompts of a fixed length, where one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    _written(
        folder / "clip_image.onnx",
        [
            helper.make_node("GlobalAveragePool", ["pixel_values"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["image_embeds"]),
            helper.make_node("Identity", ["mean"], ["last_hidden_state"]),
        ],
        [_floats("pixel_values", ["batch", 3, SIDE, SIDE])],
        [_floats("image_embeds", ["batch", 3]), _floats("last_hidden_state", ["batch", 3, 1, 1])],
    )
    table = np.array([(0, 0, 0), *WORDS.values()], dtype=np.float32)
    tokens = [helper.make_tensor_value_info("input_ids", kind, ["batch", length or "tokens"])]
    if mask:
        tokens.append(helper.make_tensor_value_info("attention_mask", kind, ["batch", length or "tokens"]))
    _written(
        folder / "clip_text.onnx",
        [
            helper.make_node("Gather", ["table", "input_ids"], ["words"]),
            helper.make_node("ReduceSum", ["words", "axis"], ["text_embeds"], keepdims=0),
        ],
        tokens,
        [_floats("text_embeds", ["batch", 3])],
        {"table": table, "axis": np.array([1], dtype=np.int64)},
    )
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(["other", *WORDS])}, unk_token="other"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def aesthetic(folder: Path) -> Path:
    """Likes red: 5 and five times how red a picture is."""
    return _written(
        folder / "aesthetic.onnx",
        [
            helper.make_node("MatMul", ["embedding", "likes"], ["liked"]),
            helper.make_node("Add", ["liked", "usual"], ["score"]),
        ],
        [_floats("embedding", ["batch", 3])],
        [_floats("score", ["batch", 1])],
        {"likes": np.array([[5], [0], [0]], dtype=np.float32), "usual": np.array([5], dtype=np.float32)},
    )


def all_of_them(folder: Path) -> Path:
    """A folder with every model."""
    folder.mkdir(parents=True, exist_ok=True)
    lpips(folder)
    clip(folder)
    aesthetic(folder)
    return folder


def _floats(name: str, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _written(
    file: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], known: dict[str, Any] | None = None
) -> Path:
    constants = [numpy_helper.from_array(values, name) for name, values in (known or {}).items()]
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(file))
    return file
