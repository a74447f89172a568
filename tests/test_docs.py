from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import gateway.errors
from gateway.cli import COMMANDS, GROUPS, build_app
from gateway.settings import setting_paths
from policies.catalog_file import Price
from policies.policy_file.schema import IntentFile, PolicyFile
from policies.scorers import SCORERS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def missing(words: Iterator[str] | list[str], page: str) -> list[str]:
    content = text(page)
    return [word for word in words if f"`{word}`" not in content]


def policy_keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from policy_keys(kind, f"{before}{name}.")
        else:
            yield before + name
            if name == "intents":
                yield from policy_keys(IntentFile, "intents.<name>.")


def command_names() -> list[str]:
    return [*COMMANDS, *(f"{group} {name}" for group, (_, commands) in GROUPS.items() for name in commands)]


def files() -> list[Path]:
    """What git knows, or would take in."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_setting_is_documented() -> None:
    assert missing(list(setting_paths()), "docs/reference/settings.md") == []


def test_every_policy_key_is_documented() -> None:
    assert missing(policy_keys(PolicyFile), "docs/reference/policy.md") == []


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
    kinds = [kind for kind in vars(gateway.errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, gateway.errors.GatewayError) and kind.code}
    assert "no_offer" in codes
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
    machine = re.compile(r"(?:^|[^\w.-])/(?:work|root|farm)/|py" r"pi\.org|python" r"hosted")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files()
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".lock", ""} and (match := machine.search(path.read_text()))
    ]
    assert found == []
