"""What goes wrong during a money run, in acts; the sandbox is told at the start of each.

A rule strikes a share of the orders of one seller, as `providers.sandbox.faults` describes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct


class Act(Struct, frozen=True):
    """A stretch of the run and the sandbox's script for it."""

    name: str
    script: Mapping[str, object]


def _rule(do: str, share: float, provider: str = "*", **args: object) -> Mapping[str, object]:
    return {"provider": provider, "when": {"share": share}, "do": do, "args": args}


NETWORK = (
    _rule("reset", 0.05, at="result"),
    _rule("reset", 0.05, at="submit"),
    _rule("late_accept", 0.05),
    _rule("timeout", 0.01),
    _rule("lost_webhook", 0.2),
    _rule("dup_webhook", 0.2),
)
BODIES = (
    _rule("truncate", 0.05),
    _rule("truncate", 0.05, times=1),
    _rule("html", 0.03),
    _rule("black", 0.05),
    _rule("black", 0.03, "fal", flagged=True),
    _rule("wrong_size", 0.05),
    _rule("wrong_count", 0.05, count=2),
    _rule("slow", 0.05),
    _rule("slow", 0.03, body_s=0.5),
)
ERRORS = (
    _rule("500", 0.15),
    _rule("503", 0.15),
    _rule("502", 0.05, "fal", at="result"),
    _rule("500", 0.05, "replicate", at="result"),
    _rule("refuse", 0.03),
)
PRICES = {
    "fal": {"fal-ai/flux/schnell": "0.0035", "fal-ai/flux-2/flash": "0.004"},
    "together": {"black-forest-labs/FLUX.1-schnell": "0.0031"},
}
"""Dollars per unit, in force from one order to the next; the gateway's catalogue knows nothing of them.

Not at Replicate, which tells no price: what it changes there, only a person can learn."""

HANGING = (_rule("slow", 0.3, seconds=3.0),)
"""Orders that take long enough to be taken for hung, so that second ones are placed beside them."""

STORM = (
    _rule("429", 0.5, "fal", retry_after=0.2),
    _rule("429", 0.4, "together", retry_after=0.2),
    _rule("429", 0.4, "replicate", retry_after=0.2),
)


TROUBLE = {
    "rack1": {"state": "killed"},
    "rack2": {"lies": ["format"]},
    "rack3": {"state": "hanging"},
}
"""What becomes of our own machines..."""
WORSE = {
    "rack1": {"state": "up", "lies": ["url"]},
    "rack2": {"state": "killed", "lies": []},
    "rack3": {"state": "up", "lies": ["seed", "answer_model"]},
}
"""...and then..."""
MENDED = {name: {"state": "up", "lies": []} for name in TROUBLE}
"""...until they are well again."""


def acts(limits: Mapping[str, object], lowered: Mapping[str, object]) -> Sequence[Act]:
    """The acts in order; `limits` are those the gateway was told, `lowered` those it is not told of."""
    return (
        Act("calm", {"rules": [], "limits": limits}),
        Act("orders that hang", {"rules": HANGING}),
        Act("429 storm", {"rules": STORM}),
        Act("5xx and refusals", {"rules": ERRORS}),
        Act("spoilt bodies", {"rules": BODIES}),
        Act("broken connections", {"rules": NETWORK}),
        Act("lowered limits", {"rules": [], "limits": lowered}),
        Act("other prices", {"rules": [], "limits": limits, "prices": PRICES}),
        Act("own machines die, hang and lie", {"rules": [], "machines": TROUBLE}),
        Act("and die again", {"machines": WORSE}),
        Act("everything", {"rules": [*BODIES, *NETWORK, *ERRORS], "machines": MENDED}),
        Act("calm again", {"rules": []}),
    )
