"""Who made a picture, said in the picture: signed by us, kept where the seller said it, read by the library itself."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image as Pillow
from pydantic import ValidationError

from gateway.assets import Assets, FolderBlobs
from gateway.clock import SystemClock
from gateway.provenance import MADE_BY_A_MODEL, PictureSigner, has_manifest, signer_of
from gateway.settings import Settings
from gateway.yaml_files import BadFile
from providers.contract import Format, Image, ImageRequest
from tests.support.town import town

c2pa = pytest.importorskip("c2pa", reason="the extra c2pa is not installed")
PEM = serialization.Encoding.PEM


def usage(**uses: bool) -> x509.KeyUsage:
    every = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    return x509.KeyUsage(**{**every, **uses})


def certified(owner: str) -> tuple[bytes, bytes]:
    """A certificate for signing with the one that vouches for it, and its key, as PEM."""
    above, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, now = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A Test CA")]), datetime.now(UTC)

    def begun(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    root = (
        begun(issuer, above)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(above, hashes.SHA256())
    )
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, owner)])
    leaf = (
        begun(name, own)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        .sign(above, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    key = own.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain)
    return leaf.public_bytes(PEM) + root.public_bytes(PEM), key


def signer(owner: str) -> PictureSigner:
    return PictureSigner(*certified(owner), "es256", None)


def drawn(form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((96, 64), 60).convert("RGB").save(out, form)
    return out.getvalue()


def told(data: bytes, fmt: Format) -> Mapping[str, Any]:
    """What the library reads in a picture: everything, with the manifest in force as `active`."""
    with c2pa.Reader(f"image/{fmt}", io.BytesIO(data)) as reader:
        found: dict[str, Any] = json.loads(reader.json())
    return found | {"active": found["manifests"][found["active_manifest"]]}


def actions(manifest: Mapping[str, Any]) -> list[str]:
    made = next(each for each in manifest["assertions"] if each["label"].startswith("c2pa.actions"))
    return [action["action"] for action in made["data"]["actions"]]


async def kept(folder: Path, data: bytes, fmt: Format, by: PictureSigner | None) -> bytes:
    assets = Assets(FolderBlobs(folder), SystemClock(), None, signer=by)
    request = ImageRequest(width=96, height=64, format=fmt)
    found = await assets.keep(Image(data=data), "img_1", request, None)
    assert await assets.read(found.path) == found.data
    return found.data


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp"])
async def test_a_picture_without_a_word_on_its_origin_is_signed_as_created_by_a_model(
    tmp_path: Path, fmt: Format
) -> None:
    data = await kept(tmp_path, drawn(fmt.upper()), fmt, signer("Pictures Ltd"))
    story = told(data, fmt)
    assert story["validation_state"] == "Valid"
    assert story["active"]["signature_info"]["issuer"] == "Pictures Ltd"
    assert actions(story["active"]) == ["c2pa.created"]
    assert MADE_BY_A_MODEL in json.dumps(story["active"])
    with Pillow.open(io.BytesIO(data)) as seen:
        assert seen.size == (96, 64)


@pytest.mark.parametrize("ours", [True, False])
async def test_what_a_seller_says_of_a_picture_survives_to_the_byte(tmp_path: Path, ours: bool) -> None:
    theirs = signer("A Seller").signed(drawn(), "png", "theirs.png")
    assert await kept(tmp_path, theirs, "png", signer("Pictures Ltd") if ours else None) == theirs


async def test_a_picture_encoded_anew_carries_the_sellers_manifest_under_ours(tmp_path: Path) -> None:
    theirs = signer("A Seller").signed(drawn(), "png", "theirs.png")
    data = await kept(tmp_path, theirs, "jpeg", signer("Pictures Ltd"))
    story = told(data, "jpeg")
    assert story["validation_state"] == "Valid"
    assert actions(story["active"]) == ["c2pa.opened", "c2pa.transcoded"]
    issuers = {manifest["signature_info"]["issuer"] for manifest in story["manifests"].values()}
    assert issuers == {"A Seller", "Pictures Ltd"}
    assert b"DigitalSourceType" in data


async def test_without_certificates_nothing_is_signed(tmp_path: Path) -> None:
    assert signer_of(Settings(state=tmp_path)) is None
    data = drawn()
    assert await kept(tmp_path / "assets", data, "png", None) == data
    assert not has_manifest(await kept(tmp_path / "assets", data, "webp", None))


def files(folder: Path) -> dict[str, str]:
    """Settings that name a certificate and a key."""
    certificate, key = certified("Pictures Ltd")
    (folder / "cert.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    return {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


async def test_a_gateway_with_a_certificate_delivers_signed_pictures(tmp_path: Path) -> None:
    patient = {"timeout": "60s", "least_patience": "40s", "linger": "200ms", "drain": "5s"}
    async with town(tmp_path / "state", c2pa=files(tmp_path), orders=patient) as found:
        delivery = await found.app.pipeline.serve(found.call())
        assert told(delivery.images[0].data, "png")["validation_state"] == "Valid"
        await found.assert_books_agree()


def test_a_certificate_goes_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="go together"):
        Settings.model_validate({"c2pa": {"certificate": "cert.pem"}})
    given = files(tmp_path)
    (tmp_path / "key.pem").write_bytes(certified("Somebody Else")[1])
    with pytest.raises(BadFile, match="cannot be signed with this certificate and key"):
        signer_of(Settings.model_validate({"state": tmp_path, "c2pa": given}))
    (tmp_path / "key.pem").unlink()
    with pytest.raises(BadFile, match="No such file"):
        signer_of(Settings.model_validate({"state": tmp_path, "c2pa": given}))


def test_a_gateway_that_should_sign_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(BadFile, match=r"c2pa-python is not installed") as caught:
        signer_of(Settings.model_validate({"state": tmp_path, "c2pa": files(tmp_path)}))
    assert "pixelgate[c2pa]" in str(caught.value.faults[0])
