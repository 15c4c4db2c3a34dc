"""The pages in docs: each complete manifest is valid, each link leads to a file, each place of a change exists."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullama.manifest.load import load_text
from mullama.manifest.spec import Sources

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = DOCS.parent / "mullama"
PAGES = sorted(DOCS.rglob("*.md"))
SECRETS = {"APPS_KEY": "a", "OPS_KEY": "b", "TEAM_KEY": "c", "WATCH_KEY": "d"}


def manifests() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(blocks, 1):
            if block.startswith("mullama: v1"):
                yield f"{page.relative_to(DOCS)} {number}", textwrap.dedent(block)


class Presets:
    """The remote files of the pages."""

    def read(self, spec: str, sources: Sources, lock: bytes | None) -> bytes:
        return b"models: {coder: builtin:tiny}\n"


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in manifests()])
def test_each_manifest_is_valid(text: str, tmp_path: Path) -> None:
    loaded = load_text(text, name="page", base_dir=str(tmp_path), env=SECRETS, remote=Presets())
    assert loaded.manifest.models or loaded.manifest.sync.git
    assert not loaded.warnings


def test_asked_elsewhere_has_its_manifests() -> None:
    assert sum(name.startswith("asked-elsewhere.md") for name, _ in manifests()) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_each_link_leads_to_a_file_below_docs(page: Path) -> None:
    """A page of the site can only link to pages of the site."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve()
        assert linked.exists(), target
        assert linked.is_relative_to(DOCS), target


def links(page: str) -> set[str]:
    return set(re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text(encoding="utf-8")))


def test_the_list_of_decisions_is_complete() -> None:
    assert links("decisions/README.md") == {page.name for page in (DOCS / "decisions").glob("0*.md")}


def test_the_index_reaches_every_how_to_and_reference_page() -> None:
    linked = links("index.md")
    pages = {str(page.relative_to(DOCS)) for folder in ("how-to", "reference") for page in (DOCS / folder).glob("*.md")}
    assert pages <= linked
    listed = set(re.findall(r'= "([^"]+\.md)"', (DOCS.parent / "zensical.toml").read_text(encoding="utf-8")))
    assert pages <= listed
    assert all((DOCS / page).is_file() for page in listed)


def changes() -> list[str]:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Changes and where they go")[2].partition("\n## ")[0]
    return [row for row in section.splitlines() if row.startswith("| ") and not row.startswith("| change ")]


@pytest.mark.parametrize("row", changes(), ids=lambda row: row.split("|")[1].strip()[:60])
def test_each_place_of_a_change_exists(row: str) -> None:
    """A name without its folder is in the folder of a place before it."""
    folders, missing = [PACKAGE, DOCS.parent], []
    for name in re.findall(r"`([\w./<>-]+)`", row.split("|", 2)[2]):
        place = name.partition("<")[0]
        if name.startswith("/") or not ("/" in place or place.endswith(".py")):
            continue  # an endpoint, a field, a class
        found = [folder / path for folder in folders for path in (place, f"{place}.py") if (folder / path).exists()]
        missing += [] if found else [name]
        folders += [path if path.is_dir() else path.parent for path in found]
    assert missing == []


def test_the_list_of_folders_has_each_package_and_module() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = page.partition("```text\nmullama/\n")[2].partition("```")[0]
    listed = {word.strip("/") for line in tree.splitlines() for word in line[:30].split()}
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert listed == found - {"__init__", "__main__"}
