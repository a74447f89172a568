"""How an endpoint is described: resources list `Operation`s beside their routes, `openapi` makes a page of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from gateway.errors import Forbidden, GatewayError, InvalidApiKey, InvalidRequest, KeyPaused, NoCapacity, TooLarge
from gateway.http.errors import TooSlow, Unexpected, UnsupportedMediaType
from gateway.http.field_kinds import Schema

Method = Literal["get", "post", "put", "patch", "delete"]
Raised = tuple[type[GatewayError], ...]

UNFIT_KEY: Raised = (InvalidApiKey, Forbidden, KeyPaused)
BAD_BODY: Raised = (InvalidRequest, TooSlow, TooLarge, UnsupportedMediaType, NoCapacity)
"""What any endpoint that reads a JSON body may answer."""


USUAL_HEADERS = ("x-request-id", "openai-version")
"""What every answer carries that is no picture."""


class Parameter(Struct, frozen=True, kw_only=True):
    """A part of the path, or a header."""

    name: str
    about: str
    schema: Schema
    place: Literal["path", "header"] = "path"
    json: bool = False
    """The header holds JSON."""


class Content(Struct, frozen=True, kw_only=True):
    """A successful answer: `schema` is a struct, a JSON Schema, or None for bytes of `media_type`."""

    about: str
    schema: type | Schema | None = None
    media_types: tuple[str, ...] = ("application/json",)
    streamed: bool = False
    """It may also come as server-sent events."""
    headers: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path."""

    method: Method
    path: str
    """With `{names}` for its parts."""
    id: str
    tag: str
    summary: str
    about: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    form: Schema | None = None
    """The same as `multipart/form-data`, where it may come so."""
    body_required: bool = True
    answers: Mapping[int, Content]
    errors: Raised = ()
    """What it raises, beside an unexpected fault."""
    scope: str = ""
    """What its key must have; of an endpoint without one, empty."""
    key: bool = True
    """It needs an API key."""
    head: bool = False
    """HEAD is answered, too."""

    def raised(self) -> Raised:
        """Every error it may answer."""
        reads = self.body is not None or self.form is not None
        always: Raised = (*(UNFIT_KEY if self.key else ()), *(BAD_BODY if reads else ()), Unexpected)
        return (*always, *self.errors)


def text_part(name: str, about: str) -> Parameter:
    """A part of a path that holds a name or an id."""
    return Parameter(name=name, about=about, schema={"type": "string", "minLength": 1})
