"""Keeps and serves pictures: checks what came, converts it where asked, stores it under an unguessable name."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from gateway.clock import Clock
from gateway.errors import NotKept
from providers.contract import Format, Head, Image, ImageRequest
from providers.picture import NotAPicture, complete, has_alpha, probe

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_PIXELS = 40_000_000
"""Larger pictures are refused before anyone decodes them: no seller draws them, decompression bombs do."""

BLANK_BYTES_PER_PIXEL = 0.03
"""A black 1024 x 1024 picture takes at most 0.016 bytes a pixel as JPEG (64 bits per 16 x 16 block) and less as PNG;
drawn ones take 0.05 and up. Only pictures below this are decoded to see whether they are black."""

SMALL = 128 * 1024
"""Bytes up to which writing a file costs less than handing it to a thread (30 against 130 us)."""

EXTENSIONS: dict[Format, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}


class Unfit(Exception):
    """The picture is not what was ordered."""

    def __init__(self, why: str, *, black: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.black = black


class Kept(Struct, frozen=True, kw_only=True):
    """A picture that was checked and stored."""

    path: str
    data: bytes
    format: Format
    width: int
    height: int
    sha256: str
    expires: datetime | None


class Blobs(Protocol):
    """Where bytes lie."""

    async def put(self, key: str, data: bytes) -> None:
        """Store under a fresh key."""

    async def get(self, key: str) -> bytes | None:
        """The bytes, or None."""

    async def delete(self, key: str) -> None:
        """Forget; a missing key is no error."""


class FolderBlobs:
    """Blobs in a local folder. Names are fresh and told to nobody before the file is whole, so none is moved there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._root = str(folder)
        self._made: set[str] = set()

    async def put(self, key: str, data: bytes) -> None:
        """Store under a fresh key; raises `NotKept` when the disk refuses."""
        try:
            if len(data) <= SMALL:
                self._write(key, data)
            else:
                await asyncio.to_thread(self._write, key, data)
        except OSError as error:
            raise NotKept("Pictures cannot be stored right now.") from error

    async def get(self, key: str) -> bytes | None:
        """The bytes, or None."""
        return await asyncio.to_thread(self._read, key)

    async def delete(self, key: str) -> None:
        """Forget; a missing key is no error."""
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(os.unlink, f"{self._root}/{key}")

    def _write(self, key: str, data: bytes) -> None:
        folder = key.rpartition("/")[0]
        if folder not in self._made:
            Path(self._root, folder).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        descriptor = os.open(f"{self._root}/{key}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            written = os.write(descriptor, data)
            while written < len(data):
                written += os.write(descriptor, data[written:])
        finally:
            os.close(descriptor)

    def _read(self, key: str) -> bytes | None:
        try:
            return Path(self._root, key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


def blob_key(path: str) -> str:
    """Where the picture of a public path lies: `019a...3f/img_1.png` -> `3f/019a...3f.png`."""
    token, _, name = path.partition("/")
    return f"{token[-2:]}/{token}.{name.rpartition('.')[2]}"


class Signs(Protocol):
    """Says in a picture who made it; `gateway.provenance.PictureSigner` does."""

    def sign(self, data: bytes, fmt: Format, name: str, original: tuple[bytes, Format] | None = None) -> bytes:
        """The picture, signed unless it carries its seller's word; `original` is what it was encoded from."""


class Assets:
    """Checks, converts, signs and keeps pictures."""

    def __init__(
        self,
        blobs: Blobs,
        clock: Clock,
        keep_for: float | None,
        teams: Mapping[str, float] | None = None,
        signer: Signs | None = None,
    ) -> None:
        """`keep_for` is in seconds, None keeps pictures until they are erased; `teams` have terms of their own."""
        self._signer = signer
        self._teams = teams or {}
        self.blobs = blobs
        self._clock = clock
        self._keep_for = keep_for

    def adopt(self, keep_for: float | None, teams: Mapping[str, float]) -> None:
        """Keep pictures to come for this long instead; those that are kept stay as long as was said then."""
        self._keep_for, self._teams = keep_for, teams

    async def keep(
        self, image: Image, asset_id: str, request: ImageRequest, compression: int | None, team: str = ""
    ) -> Kept:
        """Check one delivered picture against the request and store it.

        Raises `Unfit` when it is not what was ordered, `NotKept` when it cannot be stored.
        """
        head = await inspect(image, request)
        data, fmt = image.data, head.format
        original: tuple[bytes, Format] | None = None
        if fmt != request.format or (compression is not None and fmt != "png"):
            original = data, fmt
            data = await asyncio.to_thread(convert, data, request.format, compression)
            fmt = request.format
        if self._signer is not None:
            name = f"{asset_id}.{EXTENSIONS[fmt]}"
            data = await asyncio.to_thread(self._signer.sign, data, fmt, name, original)
        path = await self.store(data, f"{asset_id}.{EXTENSIONS[fmt]}")
        return Kept(
            path=path,
            data=data,
            format=fmt,
            width=head.width,
            height=head.height,
            sha256=hashlib.sha256(data).hexdigest(),
            expires=self._expiry(team),
        )

    async def store(self, data: bytes, name: str) -> str:
        """Put bytes as they are under a fresh public path, which ends in `name`; raises `NotKept`."""
        # 128 bits that nobody can guess, behind the time, so that the index of paths grows at its end.
        path = f"{time.time_ns() // 1_000_000:012x}{os.urandom(16).hex()}/{name}"
        await self.blobs.put(blob_key(path), data)
        return path

    def _expiry(self, team: str) -> datetime | None:
        seconds = self._teams.get(team, self._keep_for)
        return None if seconds is None else self._clock.utc() + timedelta(seconds=seconds)

    async def read(self, path: str) -> bytes | None:
        """The bytes behind a public path, or None when nothing (any more) lies there."""
        return await self.blobs.get(blob_key(path))

    async def forget(self, paths: Sequence[str]) -> None:
        """Erase pictures that were kept in vain."""
        for path in paths:
            await self.blobs.delete(blob_key(path))


async def inspect(image: Image, request: ImageRequest) -> Head:
    """The picture's head, if it is whole, of the asked size and not black; raises `Unfit`."""
    head = image.measured or whole(image.data)
    pixels = head.width * head.height
    if pixels > MAX_PIXELS:
        raise Unfit(f"{head.width}x{head.height} is larger than any picture we accept")
    if (head.width, head.height) != (request.width, request.height):
        raise Unfit(f"{head.width}x{head.height} came for {request.width}x{request.height}")
    if request.transparent and not has_alpha(image.data):
        raise Unfit("the picture has no transparency")
    if len(image.data) < pixels * BLANK_BYTES_PER_PIXEL and await asyncio.to_thread(is_black, image.data):
        raise Unfit("the picture is all black", black=True)
    return head


def whole(data: bytes) -> Head:
    """Format and size of bytes that are one whole picture; raises `Unfit`."""
    try:
        head = probe(data)
    except NotAPicture as error:
        raise Unfit(f"not a picture: {error}") from error
    if not complete(data):
        raise Unfit("the picture is cut off or damaged")
    return head


def is_black(data: bytes) -> bool:
    """Whether every pixel is (nearly) black; undecodable bytes are `Unfit`."""
    with opened(data) as picture:
        darkest_white = picture.convert("L").getextrema()[1]
    # The rounding of JPEG can lift black by a few levels.
    return isinstance(darkest_white, int | float) and darkest_white <= 4


AI_MADE = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType='
    b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)
"""IPTC's word for pictures made by a model, as an XMP packet: written where a conversion forces the loss of what the
provider said about the picture's origin."""


def _origin(picture: PillowImage) -> bytes:
    """The packet to write: the provider's own where it tells the source, else ours."""
    given = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    packet = given.encode() if isinstance(given, str) else given
    return packet if b"DigitalSourceType" in packet else AI_MADE


def convert(data: bytes, fmt: Format, compression: int | None) -> bytes:
    """Re-encode a picture; `compression` is the quality 0-100 for jpeg and webp (100 when None)."""
    from PIL.PngImagePlugin import PngInfo

    out = io.BytesIO()
    with opened(data) as picture:
        origin, quality = _origin(picture), 100 if compression is None else compression
        if fmt == "png":
            told = PngInfo()
            told.add_itxt("XML:com.adobe.xmp", origin.decode())
            picture.save(out, "PNG", pnginfo=told)
        elif fmt == "jpeg":
            picture.convert("RGB").save(out, "JPEG", quality=quality, xmp=origin)
        else:
            picture.save(out, "WEBP", quality=quality, xmp=origin)
    return out.getvalue()


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[PillowImage]:
    """A picture about to be decoded; raises `Unfit` for what cannot be, or would fill our memory.

    We measured the first head of the file. A decoder believes the last one, so a file with two is looked at again.
    """
    from PIL import Image as Pillow

    try:
        with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            head = probe(data)
            if picture.size != (head.width, head.height):
                raise Unfit("the picture has two heads that disagree")
            yield picture
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise Unfit("the picture cannot be decoded") from error
