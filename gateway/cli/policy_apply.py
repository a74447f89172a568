"""`pixelgate policy apply`: puts a file in force, unless somebody else came in between."""

from __future__ import annotations

from pathlib import Path

from gateway.cli.policy_shared import change, say_changed
from gateway.cli.shell import HERE, Json, Where, me
from gateway.features.policy_history import Change
from gateway.revisions import PolicyText
from gateway.yaml_files import bytes_of


def apply(
    file: Path,
    /,
    *,
    expect: int | None = None,
    author: str | None = None,
    message: str = "",
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Check a file, keep it in the history, and write it over the policy in force; running gateways follow.

    Parameters
    ----------
    file
        The policy.
    expect
        REV it was made from. Where another is the last by now, nothing is changed, and whose that is, is said.
    author
        Who changed it; the name of whoever types this when left out.
    message
        Why.
    """
    settings = where.settings()
    text = PolicyText(str(file), bytes_of(file))
    changed = Change(text=text, author=author or me(), message=message, expect=expect)
    say_changed(settings, change(settings, changed), json=json)
