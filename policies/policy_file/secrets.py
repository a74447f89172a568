"""Finds what looks like a secret in a file that needs none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.policy_file.values import Loc

_LOOKS = re.compile(
    r"(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"  # OpenAI, Stripe
    r"|pg_[0-9a-f]{12}_[A-Za-z0-9_-]{20,}"  # our own
    r"|r8_[A-Za-z0-9]{20,}"  # Replicate
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9a-f]{16,}"  # fal
    r"|tgp_v1_[A-Za-z0-9_-]{20,}|[0-9a-f]{64}"  # Together
    r"|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY",
    re.ASCII,
)
MESSAGE = "looks like a secret, and a policy needs none"
HINT = "withdraw it, and give sellers' keys to gateway.yaml by reference: key_env, or key_file"


def secrets_in(value: object, loc: Loc = ()) -> Iterator[Loc]:
    """Where in plain values something looks like one. The pattern has no repetition inside another, so it is linear."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from secrets_in(inside, (*loc, key))
    elif isinstance(value, list):
        for at, inside in enumerate(value):
            yield from secrets_in(inside, (*loc, at))
    elif isinstance(value, str) and len(value) >= 16 and _LOOKS.search(value):
        yield loc
