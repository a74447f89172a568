"""Signs pictures as made by a model (C2PA), where certificates are configured; the extra `c2pa` does the work.

    carries a manifest, kept as it came         left alone: it is the seller's word, and any change would break it
    carries none                                signed as created by a model
    encoded anew, and the original carried one  signed as made from that original, whose manifest goes along

Signing takes 15 ms of a thread for a picture of a megapixel, and more where a timestamp is asked for elsewhere.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog

from gateway.settings import Settings
from gateway.yaml_files import BadFile, Fault
from providers.contract import Format

if TYPE_CHECKING:
    import c2pa

log = structlog.get_logger("gateway.provenance")

MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_PARENT = "original"
_CREATED = [{"action": "c2pa.created", "digitalSourceType": MADE_BY_A_MODEL}]
_ENCODED_ANEW = [
    {"action": "c2pa.opened", "parameters": {"ingredientIds": [_PARENT]}},
    {"action": "c2pa.transcoded"},
]


def has_manifest(data: bytes) -> bool:
    """Whether a picture carries a manifest, by the boxes that hold one in every format."""
    return b"jumb" in data and b"c2pa" in data


class PictureSigner:
    """Signs with one certificate. The library signs one picture at a time."""

    def __init__(self, certificate: bytes, key: bytes, algorithm: str, timestamps: str | None) -> None:
        """`certificate` and `key` are PEM, the certificate with those that vouch for it; raises `c2pa.C2paError`."""
        import c2pa

        self._c2pa = c2pa
        self._signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, certificate, key, timestamps))
        # A thumbnail would double the size of a JPEG.
        self._context = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
        self._one_at_a_time = threading.Lock()

    def __repr__(self) -> str:
        return "<PictureSigner>"

    def sign(self, data: bytes, fmt: Format, name: str, original: tuple[bytes, Format] | None = None) -> bytes:
        """The picture with a manifest; `original` is what it was encoded from. Blocks: call it in a thread.

        A picture that cannot be signed is given back as it is, with an error in the log: it is paid for.
        """
        if has_manifest(data):
            return data
        try:
            return self.signed(data, fmt, name, original if original and has_manifest(original[0]) else None)
        except self._c2pa.C2paError as error:
            log.error("picture_not_signed", picture=name, why=str(error))
            return data

    def signed(self, data: bytes, fmt: Format, name: str, parent: tuple[bytes, Format] | None = None) -> bytes:
        """The picture with a manifest, made from `parent` where that is given; raises `c2pa.C2paError`."""
        manifest = {
            "claim_generator_info": [{"name": "pixelgate"}],
            "title": name,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": _CREATED if parent is None else _ENCODED_ANEW}}
            ],
        }
        out = io.BytesIO()
        with self._one_at_a_time, self._builder(manifest) as builder:
            if parent is not None:
                told = {"title": "as it was delivered", "relationship": "parentOf", "label": _PARENT}
                builder.add_ingredient(msgspec.json.encode(told).decode(), f"image/{parent[1]}", io.BytesIO(parent[0]))
            builder.sign(self._signer, f"image/{fmt}", io.BytesIO(data), out)
        return out.getvalue()

    def _builder(self, manifest: Mapping[str, object]) -> c2pa.Builder:
        return self._c2pa.Builder(msgspec.json.encode(manifest).decode(), self._context)


def signer_of(settings: Settings) -> PictureSigner | None:
    """The signer that the settings name, tried on a picture; None where they name none. Raises `BadFile`."""
    terms = settings.c2pa
    if terms.certificate is None or terms.key is None:
        return None
    file = str(settings.config / "gateway.yaml")
    try:
        signer = PictureSigner(
            terms.certificate.read_bytes(), terms.key.read_bytes(), terms.algorithm, terms.timestamps
        )
    except ImportError:
        raise BadFile(
            [Fault(path=file, message="c2pa: c2pa-python is not installed", hint="pip install 'pixelgate[c2pa]'")]
        ) from None
    except OSError as error:
        raise BadFile([Fault(path=file, message=f"c2pa: {error.filename}: {error.strerror}")]) from None
    except Exception as error:
        raise _unusable(file, error) from error
    try:
        signer.signed(_trial(), "png", "trial.png")
    except Exception as error:
        raise _unusable(file, error) from error
    return signer


def _trial() -> bytes:
    """A small picture to try a certificate and a key on."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return out.getvalue()


def _unusable(file: str, error: Exception) -> BadFile:
    return BadFile(
        [Fault(path=file, message=f"c2pa: pictures cannot be signed with this certificate and key: {error}")]
    )
