"""Pictures worth looking at: small generated landscapes, the same for the same prompt, seed and model.

Prompt and seed choose the scene, the model's tier and steps how richly it is painted, so that an export
shows the place its preview promised. Pillow alone, drawn in threads.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import random
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from msgspec import Struct, structs
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from providers.sandbox.palettes import Palette, palette_for
from providers.sandbox.sources import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "sandbox"
_LAYERS = {"preview": 3, "standard": 5, "export": 7}
_KEPT_BYTES = 128 * 1024 * 1024
_SOFTWARE = 305
_HORIZON = 0.62


class Scene(Struct, frozen=True, kw_only=True):
    """Everything a picture depends on."""

    prompt: str
    seed: int
    model: str
    tier: str
    width: int
    height: int
    format: str
    steps: int = 28
    black: bool = False
    inputs: tuple[Source, ...] = ()
    """What it is made from: the first shines through, the others lie in its corners."""
    mask: Source | None = None
    """White where the first input is painted over; elsewhere it stays as it is."""
    cut_out: bool = False
    """Only the middle of the first input is left, and nothing behind it."""
    plain: bool = False
    """A bare sky, for load: what takes time to paint takes as long to decode and to encode again."""


def paint(scene: Scene) -> bytes:
    """The scene as a picture file of exactly its size and format."""
    size = (scene.width, scene.height)
    if scene.black:
        return _encode(Image.new("RGB", size), scene.format)
    if scene.cut_out:
        return _encode(_cut_out(scene), scene.format)
    if scene.plain:
        return _encode(_sky(size, palette_for("", random.Random(scene.tier))), scene.format)
    return _encode(_edited(scene) if scene.inputs else _landscape(scene), scene.format)


def _opened(source: Source, size: tuple[int, int], mode: str) -> Image.Image:
    with Image.open(io.BytesIO(source.data)) as picture:
        return picture.convert(mode).resize(size, Image.Resampling.BILINEAR)


def _edited(scene: Scene) -> Image.Image:
    """The first input in the light of the prompt's landscape, or that landscape where the mask is white."""
    size = (scene.width, scene.height)
    first, landscape = _opened(scene.inputs[0], size, "RGB"), _landscape(scene)
    if scene.mask is not None:
        return Image.composite(landscape, first, _opened(scene.mask, size, "L"))
    edited = Image.blend(first, landscape, 0.35)
    side = min(size) // 5
    for number, source in enumerate(scene.inputs[1:5]):
        corner = ((size[0] - side) * (number % 2), (size[1] - side) * (number // 2))
        edited.paste(_opened(source, (side, side), "RGB"), corner)
    return edited


def _cut_out(scene: Scene) -> Image.Image:
    size = (scene.width, scene.height)
    picture = _opened(scene.inputs[0], size, "RGB") if scene.inputs else Image.new("RGB", size, (90, 110, 140))
    shape = Image.new("L", size)
    ImageDraw.Draw(shape).ellipse((size[0] // 8, size[1] // 8, size[0] * 7 // 8, size[1] * 7 // 8), fill=255)
    picture.putalpha(shape)
    return picture


def _encode(picture: Image.Image, form: str) -> bytes:
    out = io.BytesIO()
    if form == "jpeg":
        picture = picture.convert("RGB")
    if form == "png":
        text = PngInfo()
        text.add_text("Software", MARK)
        picture.save(out, "PNG", compress_level=1, pnginfo=text)
        return out.getvalue()
    exif = Image.Exif()
    exif[_SOFTWARE] = MARK
    if form == "jpeg":
        picture.save(out, "JPEG", quality=90, exif=exif)
    else:
        picture.save(out, "WEBP", quality=88, method=1, exif=exif)
    return out.getvalue()


def _landscape(scene: Scene) -> Image.Image:
    """Sky, light, ridges, water and grain, from far to near."""
    dice = random.Random(f"{scene.prompt}/{scene.seed}")
    hand = random.Random(f"{scene.prompt}/{scene.seed}/{scene.model}")
    palette = palette_for(scene.prompt, dice)
    size = (scene.width, scene.height)
    layers = _LAYERS.get(scene.tier, 5)
    sun = (dice.uniform(0.2, 0.8), dice.uniform(0.14, 0.3))
    picture = _sky(size, palette)
    if palette.stars:
        _stars(picture, dice, 40 * layers)
    picture = _clouds(picture, dice, hand, palette, octaves=layers)
    picture = _shine(picture, palette, sun)
    shores = [dice.uniform(0.36, 0.46) for _ in range(7)]
    roughness = [random.Random(dice.random()) for _ in range(7)]
    for number in range(layers):
        depth = (number + 1) / layers
        line = _ridge(roughness[number], shores[number] + depth * 0.2, 0.20 - 0.09 * depth, detail=4 + layers // 2)
        picture = _mountains(picture, line, palette.ridge(depth), fine=layers > 3, texture=_noise(hand, 24 * layers))
    if palette.water:
        picture = _water(picture, palette, hand)
    if layers > 3 and palette.water:
        _trees(picture, dice, palette, count=18 * layers)
    return _finish(picture, hand, layers, max(1, scene.steps))


def _sky(size: tuple[int, int], palette: Palette) -> Image.Image:
    fall = Image.linear_gradient("L").resize((1, size[1]), Image.Resampling.BICUBIC)
    return ImageOps.colorize(fall, palette.top, palette.low, mid=palette.middle).resize(size)


def _noise(dice: random.Random, side: int) -> Image.Image:
    return Image.frombytes("L", (side, side), dice.randbytes(side * side))


def _fog(dice: random.Random, size: tuple[int, int], octaves: int) -> Image.Image:
    """Fractal noise, wider than high: clouds."""
    fog = Image.new("L", (256, 256), 128)
    for octave in range(octaves):
        across = min(128, 2 * 2**octave)
        bands = Image.frombytes("L", (across, across * 2), dice.randbytes(across * across * 2))
        fog = Image.blend(fog, bands.resize((256, 256), Image.Resampling.BICUBIC), 0.75 / (1 + 0.55 * octave))
    veiled = ImageOps.autocontrast(fog).point([max(0, value - 110) * 255 // 145 for value in range(256)])
    return veiled.resize(size, Image.Resampling.BICUBIC)


def _clouds(
    picture: Image.Image, dice: random.Random, hand: random.Random, palette: Palette, octaves: int
) -> Image.Image:
    seeds = random.Random(dice.random() + hand.random() * 1e-9)
    fog = _fog(seeds, picture.size, octaves)
    thinner = fog.point([value * palette.cloudiness // 100 for value in range(256)])
    return Image.composite(Image.new("RGB", picture.size, palette.cloud), picture, thinner)


def _shine(picture: Image.Image, palette: Palette, sun: tuple[float, float]) -> Image.Image:
    width, height = picture.size
    reach = int(min(width, height) * 1.3)
    glow = ImageOps.invert(Image.radial_gradient("L")).point([value * value // 400 for value in range(256)])
    light = Image.new("L", picture.size)
    at = (int(width * sun[0] - reach / 2), int(height * sun[1] - reach / 2))
    light.paste(glow.resize((reach, reach), Image.Resampling.BICUBIC), at)
    picture = ImageChops.screen(picture, ImageOps.colorize(light, (0, 0, 0), palette.sun))
    disc = Image.new("L", (128, 128))
    ImageDraw.Draw(disc).ellipse((4, 4, 123, 123), fill=235)
    radius = int(min(width, height) * palette.sun_size)
    small = disc.resize((radius * 2, radius * 2), Image.Resampling.LANCZOS)
    picture.paste(palette.sun, (int(width * sun[0]) - radius, int(height * sun[1]) - radius), small)
    return picture


def _stars(picture: Image.Image, dice: random.Random, count: int) -> None:
    pen = ImageDraw.Draw(picture)
    unit = max(1.0, min(picture.size) / 900)
    for _ in range(count):
        x, y = dice.random() * picture.width, dice.random() ** 1.4 * picture.height * 0.6
        radius = unit * dice.choice((0.4, 0.6, 0.6, 1.1))
        shade = dice.randint(150, 255)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(shade, shade, 255))


def _ridge(dice: random.Random, level: float, height: float, detail: int) -> Sequence[float]:
    """Midpoint displacement from left to right: heights as fractions of the picture, top is 0."""
    line = [dice.uniform(-0.3, 0.3), dice.uniform(-0.3, 0.3)]
    swing = 1.0
    for _ in range(detail):
        between = [(a + b) / 2 + dice.uniform(-swing, swing) for a, b in itertools.pairwise(line)]
        line = [point for pair in zip(line, between, strict=False) for point in pair] + [line[-1]]
        swing *= 0.52
    return [level - height * point * 0.7 for point in line]


def _mountains(
    picture: Image.Image, line: Sequence[float], colour: tuple[int, int, int], *, fine: bool, texture: Image.Image
) -> Image.Image:
    width, height = picture.size
    top = min(height - 1, max(0, int(min(line) * height)))
    zoom = 2 if fine and width * height <= 1_600_000 else 1
    mask = Image.new("L", (width * zoom, (height - top) * zoom))
    last = len(line) - 1
    points = [(index / last * width * zoom, (y * height - top) * zoom) for index, y in enumerate(line)]
    outline = [(0.0, float(mask.height)), *points, (float(mask.width), float(mask.height))]
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    mask = mask.reduce(zoom) if zoom > 1 else mask
    rough = ImageOps.colorize(texture, _shade(colour, 0.82), _shade(colour, 1.14))
    picture.paste(rough.resize(mask.size, Image.Resampling.BILINEAR), (0, top), mask)
    return picture


def _shade(colour: tuple[int, int, int], by: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(part * by)) for part in colour)
    return red, green, blue


def _water(picture: Image.Image, palette: Palette, hand: random.Random) -> Image.Image:
    """The upper half mirrored below the shore, darkened and broken by ripples."""
    width, height = picture.size
    shore = int(height * (_HORIZON + 0.14))
    depth = height - shore
    if depth < 4:
        return picture
    mirror = picture.crop((0, max(0, shore - depth * 2), width, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirror = mirror.resize((width, depth), Image.Resampling.BILINEAR)
    tinted = Image.blend(mirror, Image.new("RGB", mirror.size, palette.low), 0.28)
    ripples = Image.frombytes("L", (6, 48), hand.randbytes(288)).resize((width, depth), Image.Resampling.BICUBIC)
    lit = ImageOps.colorize(ripples, (0, 0, 0), (58, 58, 66))
    picture.paste(ImageChops.screen(ImageChops.subtract(tinted, ImageChops.invert(lit), 1, 200), lit), (0, shore))
    return picture


def _trees(picture: Image.Image, dice: random.Random, palette: Palette, count: int) -> None:
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    dark = _shade(palette.ridge(1.0), 0.45)
    for _ in range(count):
        edge = dice.random() ** 2 * 0.42
        x = width * (edge if dice.random() < 0.5 else 1 - edge)
        tall = height * dice.uniform(0.05, 0.13) * (1.25 - 2 * edge)
        foot = height * (0.93 + 0.09 * dice.random() + 0.1 * edge)
        _tree(pen, (x, foot), tall, dark)


def _tree(pen: ImageDraw.ImageDraw, foot: tuple[float, float], tall: float, colour: tuple[int, int, int]) -> None:
    x, y = foot
    for tier in range(4):
        top = y - tall + tall * 0.2 * tier
        half = tall * (0.07 + 0.05 * tier)
        pen.polygon([(x, top), (x - half, top + tall * 0.3), (x + half, top + tall * 0.3)], fill=colour)


def _finish(picture: Image.Image, hand: random.Random, layers: int, steps: int) -> Image.Image:
    """Few steps leave it soft, many add grain and a dark rim; then the mark."""
    if layers <= 3:
        picture = picture.filter(ImageFilter.GaussianBlur(max(0.6, min(picture.size) / 420 * 4 / (steps + 1))))
    else:
        fall = [255 - value * value // 520 for value in range(256)]
        rim = Image.radial_gradient("L").point(fall).resize(picture.size)
        picture = ImageChops.multiply(picture, Image.merge("RGB", (rim, rim, rim)))
    side = 128
    grain = _noise(hand, side).point([118 + value * min(20, 4 + steps // 2) // 255 for value in range(256)])
    sheet = Image.new("L", picture.size)
    for left in range(0, picture.width, side):
        for top in range(0, picture.height, side):
            sheet.paste(grain, (left, top))
    picture = ImageChops.overlay(picture, Image.merge("RGB", (sheet, sheet, sheet)))
    _sign(picture)
    return picture


def _sign(picture: Image.Image) -> None:
    size = max(9, min(picture.size) // 46)
    pen = ImageDraw.Draw(picture, "RGBA")
    place = (picture.width - size // 2, picture.height - size // 2)
    pen.text(place, "SANDBOX", font=ImageFont.load_default(size), fill=(255, 255, 255, 110), anchor="rs")


def _weight(scene: Scene, picture: bytes) -> int:
    """Bytes that remembering a picture takes."""
    return len(picture) + sum(len(source.data) for source in scene.inputs)


class Painter:
    """Paints in two threads and remembers what it painted, up to 128 MiB.

    `plain` paints one tile per size, tier and format for everybody: for load, where nobody looks.
    """

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-painter")
        self._kept: OrderedDict[Scene, bytes] = OrderedDict()
        self._kept_bytes = 0

    async def paint(self, scene: Scene) -> bytes:
        """The scene's picture file."""
        if self.plain:
            scene = structs.replace(scene, prompt="", seed=0, model="", steps=28, inputs=(), mask=None, plain=True)
        kept = self._kept.get(scene)
        if kept is not None:
            self._kept.move_to_end(scene)
            return kept
        picture = await asyncio.get_running_loop().run_in_executor(self._threads, paint, scene)
        self._keep(scene, picture)
        return picture

    def _keep(self, scene: Scene, picture: bytes) -> None:
        if scene in self._kept:
            return
        self._kept[scene] = picture
        self._kept_bytes += _weight(scene, picture)
        while self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes -= _weight(*self._kept.popitem(last=False))

    def close(self) -> None:
        """Give back the threads; what is being painted is finished first."""
        self._threads.shutdown(wait=True, cancel_futures=True)
