from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import get_args

import pytest
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

import gateway.errors
import gateway.http.errors
from gateway.cli import COMMANDS, GROUPS, build_app
from gateway.http import openapi
from gateway.settings import Account, Settings, setting_paths
from policies.catalog_file import Price
from policies.eligibility import GATES
from policies.policy_file.examples import ExampleFile
from policies.policy_file.experiments import ChallengerFile, ExperimentFile, SharedFile
from policies.policy_file.lint import CODES
from policies.policy_file.rules import ParamsFile, PreferFile, RuleFile
from policies.policy_file.schema import IntentFile, PolicyFile, ReservationFile
from policies.scorers import SCORERS
from providers import registry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def missing(words: Iterator[str] | list[str], page: str) -> list[str]:
    content = text(page)
    return [word for word in words if f"`{word}`" not in content]


def section_of(annotation: object) -> type[BaseModel] | None:
    """The section that a key holds, or may hold."""
    kinds = [annotation, *get_args(annotation)] if isinstance(annotation, UnionType) else [annotation]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def fields_of(
    model: type[BaseModel],
    below: dict[str, type[BaseModel]],
    before: str = "",
    seen: frozenset[type[BaseModel]] = frozenset(),
) -> dict[str, FieldInfo]:
    """Every key as people type it; `below` is what lies under a mapping of the user's own names, or in a list.

    A section that stands in two places is described in the first.
    """
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        kind = section_of(field.annotation)
        if kind is not field.annotation:
            found[before + name] = field
        if kind is not None and kind not in seen:
            found |= fields_of(kind, below, f"{before}{name}.", seen)
            seen |= {kind}
        if name in below:
            under = f"{name}[]." if "tuple" in str(field.annotation) else f"{name}.<name>."
            found |= fields_of(below[name], below, f"{before}{under}", seen)
    return found


def rows(page: str) -> dict[str, list[str]]:
    """First cell -> the others, of every table row on a page that begins with a word in backticks."""
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in text(page).splitlines()]
    return {cells[0].strip("`"): cells[1:] for cells in split if cells[0].startswith("`")}


def meaning(typed: str, field: FieldInfo) -> object:
    """What a value means that is typed as on the page: `5m` is 300 seconds."""
    alone = create_model("Alone", value=(field.annotation or object, field))
    found: object = alone.model_validate({"value": typed}).model_dump()["value"]
    return found


def command_names() -> list[str]:
    return [*COMMANDS, *(f"{group} {name}" for group, (_, commands) in GROUPS.items() for name in commands)]


def files() -> list[Path]:
    """What git knows, or would take in."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607 - whichever git there is
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_setting_is_documented() -> None:
    assert missing(list(setting_paths()), "docs/reference/settings.md") == []


def test_the_settings_page_says_what_the_settings_say() -> None:
    page = rows("docs/reference/settings.md")
    for path, field in fields_of(Settings, {"accounts": Account}).items():
        if path == "accounts":
            continue  # a section of its own
        default, about = page[path]
        assert about == field.description, path
        if default.startswith("`"):
            assert meaning(default.strip("`"), field) == field.default, path
        else:
            assert field.is_required() or field.default is None or field.default_factory, path


def test_every_option_of_an_adapter_is_documented() -> None:
    options = {name for kind in registry.kinds() for name in registry.settings_of(kind).model_fields}
    assert missing(sorted(options - {"key", "base_url"}), "docs/reference/settings.md") == []


def test_the_policy_page_says_what_the_keys_say_and_the_keys_say_their_defaults() -> None:
    page = rows("docs/reference/policy.md")
    below: dict[str, type[BaseModel]] = {
        "intents": IntentFile, "rules": RuleFile, "reservations": ReservationFile, "examples": ExampleFile,
        "experiments": ExperimentFile, "challengers": ChallengerFile, "by": SharedFile,
        "prefer": PreferFile,
    }  # fmt: skip
    params = {
        f"rules[].params[].{name}": field for name, field in ParamsFile.model_fields.items()
    }  # not a challenger's
    for key, field in (fields_of(PolicyFile, below) | params).items():
        assert page[key] == [field.description], key
        stated = re.search(r"\(([^()]+)\)\.$", field.description or "")
        if stated is not None and not field.is_required():
            assert meaning(stated[1], field) == field.default, key


def test_every_code_of_lint_is_documented() -> None:
    page = rows("docs/reference/policy.md")
    assert [code for code, about in CODES.items() if page.get(code) != [about]] == []


def test_every_gate_is_documented() -> None:
    sources = text("policies/eligibility.py") + text("policies/engine.py")
    codes = {code for code, _ in GATES} | set(re.findall(r'code="([a-z_]+)"', sources))
    assert len(codes) > len(GATES)
    assert missing(sorted(codes), "docs/reference/policy.md") == []


def test_every_scorer_is_documented() -> None:
    assert missing(list(SCORERS), "docs/reference/policy.md") == []


def test_every_command_is_documented() -> None:
    assert missing(command_names(), "docs/reference/commands.md") == []


@pytest.mark.parametrize("command", command_names())
def test_every_option_of_a_command_is_documented(command: str) -> None:
    app = build_app()
    for word in command.split():
        app = app[word]
    names = {name for argument in app.assemble_argument_collection() for name in argument.names}
    options = {name for name in names if name.startswith("--") and not name.startswith(("--no-", "--empty-"))}
    page = text("docs/reference/commands.md")
    assert [name for name in sorted(options) if name not in page] == []


def test_every_error_code_is_documented() -> None:
    modules = vars(gateway.errors) | vars(gateway.http.errors)
    kinds = [kind for kind in modules.values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, gateway.errors.GatewayError) and kind.code}
    door = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway" / "http").glob("*.py"))
    codes |= set(re.findall(r'code="([a-z_]+)"', door))
    assert codes > {"no_offer", "internal_error", "invalid_json"}
    assert missing(sorted(codes), "docs/reference/errors.md") == []


def test_every_way_to_charge_and_every_field_of_a_price_is_documented() -> None:
    page = text("docs/reference/tariffs.md")
    assert [name for name in Price.model_fields if name not in page] == []


def test_every_path_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`((?:\./)?[a-z_.]+/[\w./<>*-]*|[a-z_]+\.(?:md|toml|lock))`", text("README.md")))
    paths = {name for name in named if "<" not in name and "*" not in name}
    assert len(paths) > 15
    assert [
        path
        for path in sorted(paths)
        if not (ROOT / path).exists() and not path.startswith(("demo-output", ".pixelgate"))
    ] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [ROOT / "README.md", *DOCS.rglob("*.md")]
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert dead == []


def test_no_file_names_a_machine_or_a_package_host() -> None:
    machine = re.compile(r"(?:^|[^\w.}-])/(?:work|root|farm)/|py" r"pi\.org|python" r"hosted")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files()
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".lock", ""} and (match := machine.search(path.read_text()))
    ]
    assert found == []


def test_the_clients_page_names_the_versions_that_are_tested() -> None:
    locks = ROOT / "tests" / "clients" / "environments"
    python = [line for lock in locks.glob("*.in") for line in lock.read_text().split()]
    node = json.loads((locks / "node" / "package.json").read_text())["dependencies"]
    helpers = {"@langchain/core", "pillow"}
    pinned = [line.split("==") for line in python] + [list(pair) for pair in node.items()]
    assert len(pinned) > 10
    assert missing([version for name, version in pinned if name not in helpers], "docs/reference/clients.md") == []


def test_the_committed_openapi_document_is_the_one_that_is_served() -> None:
    committed = (DOCS / "openapi.json").read_bytes()
    assert committed == openapi.document(), "write it anew: .venv/bin/python -m gateway.http.openapi"


def test_no_link_is_part_of_the_tree() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage"],  # noqa: S607 - whichever git there is
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []
