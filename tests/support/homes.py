"""Configuration folders that tests edit: three models, the shipped policy."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from gateway.settings import default_config

MODELS = ("flux-schnell", "flux-dev", "flux-2-pro")


def small_home(folder: Path) -> Path:
    """A configuration with few models, which is quick to read."""
    home = folder / "config"
    for part in ("catalog", "policies"):
        (home / part).mkdir(parents=True)
    for model in MODELS:
        shutil.copy(default_config() / "catalog" / f"{model}.yaml", home / "catalog")
    shipped = (default_config() / "policies" / "default.yaml").read_text()
    no_edits = re.sub(r"(?m)^  edits:.*\n(?: {20,}#.*\n)*", "", shipped)
    (home / "policies" / "default.yaml").write_text(no_edits)
    return home


def edit(path: Path, old: str, new: str) -> None:
    """Save a file with one thing changed."""
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))
