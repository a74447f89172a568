"""`GET /assets/{unguessable}/{name}.png`: pictures by their public URL. The name is the key: 128 random bits."""

from __future__ import annotations

import re
from collections.abc import Mapping

from litestar import Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.errors import NotFound
from gateway.http.health import READ
from gateway.http.operations import USUAL_HEADERS, Content, Operation, text_part
from gateway.http.resources import HttpRequest
from gateway.http.services import Services
from gateway.storage.rows import AssetRow

_PATH = re.compile(r"[A-Za-z0-9_-]{16,100}/[A-Za-z0-9_-]{1,100}\.[a-z]{2,5}", re.ASCII)
"""What our own paths look like; nothing else reaches database or store."""
_RANGE = re.compile(r"bytes=([0-9]{0,12})-([0-9]{0,12})", re.ASCII)
LONGEST_CACHE_S = 365 * 86_400


OPERATIONS = (
    Operation(
        method="get",
        path="/assets/{token}/{name}",
        id="getAsset",
        tag="Assets",
        summary="A picture",
        about="The path is the key: it cannot be guessed. It comes in answers, as `url`.",
        parameters=(text_part("token", "Unguessable."), text_part("name", "The file's name.")),
        answers={
            200: Content(
                about="The picture.",
                media_types=("image/png", "image/jpeg", "image/webp"),
                headers=(*USUAL_HEADERS, "etag", "cache-control"),
            ),
            304: Content(about="You have it already, says `If-None-Match`.", media_types=()),
        },
        errors=(NotFound,),
        key=False,
        head=True,
    ),
)


def assets(services: Services) -> HTTPRouteHandler:
    """The route."""

    @route("/assets/{token:str}/{name:str}", http_method=READ)
    async def get_asset(request: HttpRequest, token: FromPath[str], name: FromPath[str]) -> Response[bytes]:
        path = f"{token}/{name}"
        asset = await services.db.asset_by_path(path) if _PATH.fullmatch(path) else None
        left = _seconds_left(asset, services)
        if asset is None or left <= 0:
            raise NotFound("There is no picture here, or no longer.")
        if request.method == "GET":
            services.fetches.note(asset.id)
        headers = _headers(asset, left)
        if asset.sha256 in request.headers.get("if-none-match", ""):
            return Response(content=b"", status_code=304, headers=headers)
        data = await services.blobs.read(asset.path)
        if data is None:
            raise NotFound("There is no picture here, or no longer.")
        part = asked_part(request.headers, asset.sha256, len(data))
        if part is None:
            return Response(content=data, media_type=asset.media_type, headers=headers)
        first, last = part
        if first > last:
            unmet = headers | {"content-range": f"bytes */{len(data)}"}
            return Response(content=b"", status_code=416, headers=unmet, media_type=asset.media_type)
        headers["content-range"] = f"bytes {first}-{last}/{len(data)}"
        return Response(content=data[first : last + 1], status_code=206, media_type=asset.media_type, headers=headers)

    return get_asset


def asked_part(headers: Mapping[str, str], digest: str, length: int) -> tuple[int, int] | None:
    """First and last byte that a `Range` asks for (first behind last: none of ours); None: the whole picture.

    Anything but one plain range of bytes, or a range of another version of the picture, gets the whole, as HTTP allows.
    """
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", digest).strip('"') != digest:
        return None
    first, last = found.groups()
    if first:
        return int(first), min(int(last or length), length - 1)
    return (max(length - int(last), 0), length - 1) if last and int(last) else (1, 0) if last else None


def _headers(asset: AssetRow, left: int) -> dict[str, str]:
    return {
        "accept-ranges": "bytes",
        "etag": f'"{asset.sha256}"',
        "cache-control": f"public, max-age={left}, immutable",
        "x-content-type-options": "nosniff",
        "content-disposition": f'inline; filename="{asset.path.rpartition("/")[2]}"',
        # Should a picture ever be opened as a page, it may load and run nothing.
        "content-security-policy": "default-src 'none'; sandbox",
    }


def _seconds_left(asset: AssetRow | None, services: Services) -> int:
    if asset is None or asset.expires is None:
        return LONGEST_CACHE_S
    return int((asset.expires - services.clock.utc()).total_seconds())
