"""`pixelgate policy lint`: what is wrong or suspicious in policy files, at file:line:column, and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gateway.cli.shell import HERE, Stop, Where, print_json, say
from gateway.features.measuring import unmeasurable
from gateway.revisions import PolicyText, Revision, faults_of_policy, load_revision, placed, policy_path
from gateway.settings import Settings
from gateway.yaml_files import BadFile, Document, Fault, read, read_bytes
from policies.policy_file.lint import CODES, Linter
from policies.policy_file.schema import PolicyFile, compile_policy

_NO_POLICY = """
policy: {name}
revision: 1
default_intent: preview
intents: {{preview: {{tier: preview, latency_slo: 15s, deadline: 2m}}}}
"""
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def lint(
    *files: Path,
    format: Annotated[Literal["text", "json", "sarif"], Parameter(name="--format")] = "text",  # noqa: A002 - its name
    where: Where = HERE,
) -> int:
    """Check policies against the language and the catalogue. Needs no keys and orders nothing.

    Exit codes: 0 nothing found; 1 something found; 2 bad usage, or a catalogue or settings that cannot be read.

    Parameters
    ----------
    files
        Policy files; the policy in force when left out.
    format
        text for people, json for scripts, sarif for code hosts.
    """
    settings = where.settings()
    paths = list(files) or policies_in_force(settings)
    base = without_policy(settings)
    found = [fault for path in paths for fault in faults_of(path, settings, base)]
    if format == "json":
        print_json({"findings": [_as_json(fault) for fault in found]})
    elif format == "sarif":
        print_json(_as_sarif(found))
    else:
        _print(found, len(paths))
    return 1 if found else 0


def without_policy(settings: Settings) -> Revision:
    """The configuration with a policy that says nothing, so that one in force that is broken does not matter.

    Raises `BadFile`.
    """
    text = PolicyText("-", _NO_POLICY.format(name=settings.policy).encode())
    return load_revision(settings, every_account=True, policy=text)


def policies_in_force(settings: Settings) -> list[Path]:
    """The file of the policy in force; stops where there is none."""
    path = policy_path(settings)
    if path is None:
        raise Stop(f"there is no policy called {settings.policy!r}")
    return [path]


def faults_of(path: Path, settings: Settings, base: Revision) -> Sequence[Fault]:
    """Everything found in a policy file, in reading order."""
    try:
        document = read(path)
    except BadFile as error:
        return error.faults
    return _faults_in(document, settings, base)


def faults_of_text(text: PolicyText, settings: Settings) -> Sequence[Fault]:
    """Everything that is wrong in a policy that stands in no file yet; warnings are left out."""
    document = read_bytes(text.content, text.path)
    found = _faults_in(document, settings, without_policy(settings))
    return [fault for fault in found if fault.level == "error"]


def _faults_in(document: Document, settings: Settings, base: Revision) -> Sequence[Fault]:
    try:
        file = document.parse(PolicyFile)
    except BadFile as error:
        return _sorted([*error.faults, *_unless_said(document.traps, error.faults)])
    found = [*faults_of_policy(document, file, settings, base.catalog), *_unmeasured(document, file, settings)]
    if not any(fault.code == "name" for fault in found):
        found += [placed(document, each) for each in Linter(file, compile_policy(file), base.catalog).findings()]
    return _sorted([*found, *_unless_said(document.traps, found)])


def _unmeasured(document: Document, file: PolicyFile, settings: Settings) -> Iterator[Fault]:
    """Measures that experiments would be decided by, and that nothing here takes."""
    missing = unmeasurable(settings)
    for at, experiment in enumerate(file.experiments):
        for measure in experiment.compare:
            if measure in missing:
                message = f"nothing here measures {measure}: {missing[measure]}"
                hint = f"leave {measure} out, or put it there"
                yield document.fault(("experiments", at, "compare"), message, hint=hint, code="measure")


def _unless_said(traps: Sequence[Fault], found: Sequence[Fault]) -> list[Fault]:
    """Traps where nothing else is said of the same value."""
    said = {(fault.line, fault.column) for fault in found}
    return [trap for trap in traps if (trap.line, trap.column) not in said]


def _sorted(faults: Sequence[Fault]) -> list[Fault]:
    return sorted(faults, key=lambda fault: (fault.line, fault.column))


def _print(found: Sequence[Fault], files: int) -> None:
    for fault in found:
        mark = "" if fault.level == "error" else "warning: "
        first, _, rest = str(fault).partition("\n")
        place, _, message = first.partition(f": {fault.message}")
        print(f"{place}: {mark}{fault.message}{message} [{fault.code}]" + (f"\n{rest}" if rest else ""))
    errors = sum(fault.level == "error" for fault in found)
    say(f"errors: {errors}, warnings: {len(found) - errors}, files: {files}")


def _as_json(fault: Fault) -> Mapping[str, object]:
    return {
        "file": fault.path,
        "line": fault.line,
        "column": fault.column,
        "level": fault.level,
        "code": fault.code,
        "message": fault.message,
        "fix": fault.hint,
    }


def _as_sarif(found: Sequence[Fault]) -> Mapping[str, object]:
    """SARIF 2.1.0, as code hosts show it beside the lines of a pull request."""
    rules = [{"id": code, "shortDescription": {"text": about}} for code, about in CODES.items()]
    return {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "pixelgate policy lint", "rules": rules}},
                "results": [_result(fault) for fault in found],
            }
        ],
    }


def _result(fault: Fault) -> Mapping[str, object]:
    text = fault.message if fault.hint is None else f"{fault.message}. Fix: {fault.hint}"
    region = {"startLine": max(fault.line, 1), "startColumn": max(fault.column, 1)}
    return {
        "ruleId": fault.code,
        "level": fault.level,
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": fault.path}, "region": region}}],
    }
