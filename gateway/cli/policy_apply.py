"""`pixelgate policy apply`: puts a file in force, unless somebody else came in between."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gateway.cli.policy_shared import change, say_changed
from gateway.cli.shadow_plan import plan
from gateway.cli.shell import HERE, Json, Where, me, print_json, say
from gateway.cli.simulating import revision_of
from gateway.features.policy_history import Change
from gateway.revisions import PolicyText, Revision
from gateway.yaml_files import bytes_of


def apply(
    file: Path,
    /,
    *,
    expect: int | None = None,
    author: str | None = None,
    message: str = "",
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
    where: Where = HERE,
) -> int:
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
    dry_run
        Check it, and say what its experiments will cost and when they can say something; change nothing.
    """
    settings = where.settings()
    if dry_run:
        return _tried(revision_of(settings, str(file), None), file, json=json, where=where)
    text = PolicyText(str(file), bytes_of(file))
    changed = Change(text=text, author=author or me(), message=message, expect=expect)
    say_changed(settings, change(settings, changed), json=json)
    return 0


def _tried(revision: Revision, file: Path, *, json: bool, where: Where) -> int:
    """What a file without faults would cost before it has done anything: its experiments."""
    say(f"{revision.policy.label} has no faults; nothing is changed")
    if revision.policy.experiments:
        return plan(all=True, policy=str(file), json=json, where=where)
    if json:
        print_json({"plans": []})
    return 0
