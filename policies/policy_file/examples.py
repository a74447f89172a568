"""Examples that a policy file carries: a request, a market, and what is expected of the policy then.

- example: acme's previews stay away from fal
  shows: acme-without-fal
  given: {team: acme}
  market: {down: together}
  expect: {provider: replicate, rejected: {fal: rule}}
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from policies.policy import Quality
from policies.policy_file.values import Name, Section, Words
from providers.contract import Operation

_MOMENT = "%Y-%m-%d %H:%M"


def parse_moment(value: object) -> datetime:
    """Read `2026-11-28 22:30`, which is counted in the policy's `timezone`."""
    try:
        return datetime.strptime(str(value), _MOMENT)  # noqa: DTZ007 - whoever runs the example knows the zone
    except ValueError:
        shown = {"value": repr(value)}
        raise PydanticCustomError(
            "moment", "{value} is no moment: write day and time, as in 2026-11-28 22:30", shown
        ) from None


Moment = Annotated[
    datetime,
    BeforeValidator(parse_moment),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d \d\d:\d\d$", "examples": ["2026-11-28 22:30"]}),
]


class GivenFile(Section):
    """A call, as its caller would send it."""

    team: str = Field(default="default", description="Whose call it is (default).")
    key: str = Field(default="", description="The id of its API key; none.")
    model: str | None = Field(default=None, description="The model asked for; auto.")
    intent: str | None = Field(default=None, description="The intent asked for; by quality.")
    quality: Quality | None = Field(default=None, description="OpenAI's quality word; none.")
    size: str | None = Field(default=None, description="The size, as in 1024x1024; `sizes.auto`.")
    n: int | None = Field(default=None, ge=1, le=10, description="Pictures; one.")
    steps: int | None = Field(default=None, ge=1, description="Steps; the model's own.")
    max_cost: float | None = Field(default=None, gt=0, strict=False, description="Most dollars for all pictures; any.")
    tags: dict[str, str] | None = Field(default=None, description="Tags; none.")
    operation: Operation = Field(default="generate", description="What is done (generate).")
    at: Moment | None = Field(default=None, description="When it comes in, in `timezone`; now.")

    def body(self) -> dict[str, object]:
        """The fields of the request."""
        names = ("model", "intent", "quality", "size", "n", "steps", "max_cost", "tags")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class MarketFile(Section):
    """How the sellers are at that moment; where nothing is said, all serve and nothing is in flight."""

    down: Words | None = Field(default=None, description="Provider accounts, or kinds, that answer nobody; none.")
    full: Words | None = Field(
        default=None, description="Provider accounts, or kinds, that take no more for now; none."
    )


class ExpectFile(Section):
    """What the policy is to do."""

    offer: str | None = Field(default=None, description="The offer that draws, as in fal:flux-dev; `none` for nobody.")
    provider: str | None = Field(default=None, description="The account that draws, or its kind.")
    model: str | None = Field(default=None, description="The model that draws.")
    rejected: dict[str, str] | None = Field(
        default=None,
        min_length=1,
        description="Offer, provider or model that may not serve -> the gate that rejects it.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> ExpectFile:
        if not self.model_fields_set:
            raise PydanticCustomError("expect", "expects nothing: write offer, provider, model or rejected", {})
        return self


class ExampleFile(Section):
    """One example."""

    example: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="What it shows, in a sentence.")
    shows: Name | None = Field(default=None, description="The rule it is of, which must be about the call; none.")
    given: GivenFile = GivenFile()
    market: MarketFile = MarketFile()
    expect: ExpectFile = Field(description="What the policy is to do.")
