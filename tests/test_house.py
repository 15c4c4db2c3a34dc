"""The shape of the tree: width of folders, and names that mean one thing."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import get_args

from mullama.cli.app.commands import COMMANDS, GROUPS
from mullama.dialects import DIALECTS
from mullama.manifest.spec.readers import DialectName
from mullama.server.openapi import document

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mullama"
WIDEST = 20

# Names of the Python API, which users know from other bindings; the manifest's block of that name is not exported.
API_NAMES = {"Answer", "Context", "Model", "TextStream"}


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def modules(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.py") if path.name != "__init__.py"]


def test_no_folder_has_more_modules_than_a_reader_takes_in() -> None:
    tops = (PACKAGE, ROOT / "tests")
    folders = [*tops, *(path for top in tops for path in top.rglob("*") if path.is_dir())]
    wide = {str(folder.relative_to(ROOT)): count for folder in folders if (count := len(modules(folder))) > WIDEST}
    assert wide == {}


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for name in re.findall(r"^class ([A-Za-z]\w*)", text_of(path), re.MULTILINE):
            places[name].append(str(path.relative_to(PACKAGE)))
    shared = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert {name: paths for name, paths in shared.items() if name not in API_NAMES or "api.py" not in paths} == {}


def test_every_module_states_its_purpose() -> None:
    silent = [str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py") if not re.match(r'r?"""\S', text_of(path))]
    assert silent == []


def test_each_dialect_is_in_every_table_of_dialects() -> None:
    folders = {path.name for path in (PACKAGE / "dialects").iterdir() if (path / "__init__.py").exists()}
    tags = {tag["name"] for tag in document((), False, "")["tags"]}
    assert folders == set(DIALECTS) == set(get_args(DialectName)) == tags - {"operator"}


def test_each_command_is_in_the_table_of_commands() -> None:
    found = set()
    for group in GROUPS:
        for path in modules(PACKAGE / "cli" / group):
            functions = set(re.findall(r"^def (\w+)", text_of(path), re.MULTILINE))
            names = {name.removesuffix("_options") for name in functions if name.endswith("_options")}
            found |= {name for name in names if functions & {name, f"{name}_"}}
    assert found == {command.name for command in COMMANDS}
