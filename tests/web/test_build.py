"""The build of the page: it depends on its inputs alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mullama.web import build


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, without a built page."""
    for name in ("package.json", "package-lock.json", "tsconfig.json", "build.py"):
        shutil.copy(build.HERE / name, tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/main.tsx").write_text("export {};\n")
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "DIST", tmp_path / "dist")
    monkeypatch.setattr(build, "_SOURCE", tmp_path / "source")
    return tmp_path


def test_the_page_is_current_until_an_input_changes(sources: Path) -> None:
    assert not build.is_current()
    (sources / "dist").mkdir()
    (sources / "dist/inputs").write_text(build.digest())
    assert build.is_current()
    (sources / "source/main.tsx").write_text("export const a = 1;\n")
    assert not build.is_current()


def test_a_renamed_source_is_another_input(sources: Path) -> None:
    before = build.digest()
    (sources / "source/main.tsx").rename(sources / "source/other.tsx")
    assert build.digest() != before


def test_an_installation_without_sources_has_the_page_that_it_came_with(sources: Path) -> None:
    shutil.rmtree(sources / "source")
    assert build.is_current()
    assert build.build() is False


def test_a_build_without_node_and_without_an_index_gives_the_reason(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(sources))
    monkeypatch.setenv("XDG_CACHE_HOME", str(sources / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr("sys.argv", ["build"])
    assert build.main() == 2
    assert "the web page was not built" in capsys.readouterr().err


def test_the_first_screen_has_the_scripts_that_are_imported_at_once() -> None:
    now, later = "import-statement", "dynamic-import"
    outputs = {
        "d/main-A.js": {"imports": [{"path": "d/a.js", "kind": now}, {"path": "d/plan.js", "kind": later}]},
        "d/a.js": {"imports": [{"path": "d/b.js", "kind": now}, {"path": "d/main-A.js", "kind": now}]},
        "d/b.js": {"imports": [{"path": "d/a.js", "kind": now}]},
        "d/plan.js": {"imports": [{"path": "d/editor.js", "kind": now}]},
        "d/editor.js": {"imports": []},
        "d/main-B.css": {"imports": []},
    }
    assert build.first_scripts(outputs) == ["main-A.js", "a.js", "b.js"]


def test_every_library_of_the_page_is_pinned() -> None:
    import json

    declared = json.loads((build.HERE / "package.json").read_text())
    versions = [*declared["dependencies"].values(), *declared["devDependencies"].values()]
    assert all(version[0].isdigit() for version in versions)
    assert "resolved" not in (build.HERE / "package-lock.json").read_text()  # no registry is preferred
