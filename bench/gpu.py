"""`python -m bench.gpu`: how much of a card's arithmetic FLUX.1 gets out of it, and so how many pictures an hour.

The transformer and the picture decoder are built in their true shapes (11.9 billion parameters) with random weights:
how long a step takes does not depend on what the weights are, so nothing is downloaded. The prompt's encoding, once per
call and some hundredths of a second, is left out. The peak is what the same card reaches, in the same run, at a product
of large random matrices in bf16; a share is the operations that `policies/offline/throughput.py` counts over the time
a whole picture took, as a part of that peak.

Runs where torch and diffusers are; neither is among our dependencies.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench.report import Figure, conclude
from policies.offline.throughput import STEPS, step_tflop

TEXT_TOKENS = 256
"""Words of a prompt as the counted arithmetic has them."""
SHAPES: Sequence[tuple[int, int]] = ((512, 1), (512, 4), (1024, 1), (1024, 4), (2048, 1))
"""Side in pixels, and pictures drawn together."""
FLUX: Mapping[str, Any] = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
}
TINY: Mapping[str, Any] = {
    **FLUX,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "axes_dims_rope": (4, 6, 6),
}
"""For a try of the bench itself, without a card."""
DECODER: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TINY_DECODER: Mapping[str, Any] = {**DECODER, "block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8}


class Options(Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    repeats: int
    side: Sequence[int]
    compiled: bool
    tiny: bool
    json: Path | None


class Card:
    """FLUX.1 on one card."""

    def __init__(self, options: Options) -> None:
        import torch
        from diffusers import AutoencoderKL, FluxTransformer2DModel

        self._torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cpu" and not options.tiny:
            raise SystemExit("bench gpu: torch sees no GPU here; --tiny tries the bench itself without one")
        self.name = torch.cuda.get_device_name() if self.device == "cuda" else "no GPU"
        torch.manual_seed(1)
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(self.device):
            self._flux = FluxTransformer2DModel(**(TINY if options.tiny else FLUX), guidance_embeds=True).eval()
            self._decoder = AutoencoderKL(**(TINY_DECODER if options.tiny else DECODER)).eval()
        if options.compiled:
            self._flux = torch.compile(self._flux)

    def now(self) -> float:
        """Seconds, when all that was asked of the card is done."""
        if self.device == "cuda":
            self._torch.cuda.synchronize()
        return time.perf_counter()

    def peak_tflops(self, side: int) -> float:
        """The most TFLOP/s that products of random matrices reach."""
        torch = self._torch
        left, right = (torch.randn(side, side, device=self.device) for _ in range(2))
        return 2 * side**3 / 1e12 / self.seconds(lambda: left @ right, repeats=20)

    def seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Mean seconds of a piece of work, once warm."""
        work()
        began = self.now()
        for _ in range(repeats):
            work()
        return (self.now() - began) / repeats

    def draw(self, side: int, pictures: int, steps: int) -> object:
        """Denoise and decode; the picture is noise, and takes as long as any other."""
        torch = self._torch
        rows = side // 16
        like = {"device": self.device}
        with torch.inference_mode():
            latents = torch.randn(pictures, rows * rows, 64, **like)
            words = torch.randn(pictures, TEXT_TOKENS, 4096, **like)
            pooled = torch.randn(pictures, 768, **like)
            places = torch.zeros(rows, rows, 3, **like)
            places[..., 1] += torch.arange(rows, **like)[:, None]
            places[..., 2] += torch.arange(rows, **like)[None, :]
            places = places.reshape(rows * rows, 3)
            texts = torch.zeros(TEXT_TOKENS, 3, **like)
            guidance = torch.full((pictures,), 3.5, **like)
            for step in range(steps):
                moment = torch.full((pictures,), 1 - step / steps, **like)
                latents -= self._flux(
                    hidden_states=latents, timestep=moment, guidance=guidance, pooled_projections=pooled,
                    encoder_hidden_states=words, txt_ids=texts, img_ids=places, return_dict=False,
                )[0] / steps  # fmt: skip
            latents = latents.view(pictures, rows, rows, 16, 2, 2).permute(0, 3, 1, 4, 2, 5)
            return self._decoder.decode(latents.reshape(pictures, 16, 2 * rows, 2 * rows), return_dict=False)[0]


def measure(options: Options) -> tuple[list[Figure], Mapping[str, object]]:
    """Every model, size and number together."""
    card = Card(options)
    peak = card.peak_tflops(256 if options.tiny else 8192)
    found = [Figure(name="peak_tflops", value=peak, unit="TFLOP/s")]
    shapes = [shape for shape in SHAPES if not options.side or shape[0] in options.side]
    if options.tiny:
        shapes = [(64, 1)]
    for model, steps in STEPS.items():
        for side, together in shapes:
            repeats = 1 if options.tiny else max(1, options.repeats * 1024 // (side * together))
            seconds = card.seconds(partial(card.draw, side, together, steps), repeats) / together
            name = f"{model}_{side}px_x{together}"
            share = float(step_tflop(side, side)) * steps / seconds / peak
            found.append(Figure(name=f"{name}_per_h", value=3600 / seconds, unit="pictures"))
            found.append(Figure(name=f"{name}_share_pct", value=100 * share, unit="% of peak"))
            print(f"{name}: {seconds:.3f} s a picture, {3600 / seconds:,.0f} an hour, {share:.0%} of peak", flush=True)
    return found, {"card": card.name, "compiled": options.compiled, "tiny": options.tiny}


def main(words: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench gpu", description="How many pictures an hour does a card draw?")
    parser.add_argument("--repeats", type=int, default=3, help="pictures of 1024 x 1024 that are timed (default 3)")
    sides = sorted({side for side, _ in SHAPES})
    parser.add_argument(
        "--side", type=int, action="append", default=[], choices=sides, help="of the pictures, in pixels"
    )
    parser.add_argument("--compiled", action="store_true", help="through torch.compile, as servers run it")
    parser.add_argument("--tiny", action="store_true", help="a try of the bench itself with two layers, GPU or not")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = Options(**vars(parser.parse_args(words)))
    try:
        found, context = measure(options)
    except ImportError as missing:
        parser.error(f"{missing.name} is not installed; on a machine with a GPU: pip install torch diffusers")
    return conclude(found, context=context, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
