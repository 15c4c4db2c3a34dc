"""Imports of a part of a library."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullama.imports import import_without, without_package


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "somelibrary"
    folder.mkdir()
    (folder / "__init__.py").write_text("from somelibrary import heavy\nNAME = heavy.VALUE\n")
    (folder / "heavy.py").write_text("VALUE = 3\n")
    (folder / "light.py").write_text("from somelibrary.other import USED\n")
    (folder / "other.py").write_text("USED = 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "somelibrary"]:
        del sys.modules[name]


def test_a_module_is_imported_without_the_code_of_its_package(library: Path) -> None:
    without_package("somelibrary")
    import somelibrary.light  # type: ignore[import-not-found]

    assert somelibrary.light.USED == 4
    assert "somelibrary.heavy" not in sys.modules
    assert somelibrary.NAME == 3, "the code of the package runs at the first use of its names"
    assert "somelibrary.heavy" in sys.modules
    with pytest.raises(AttributeError):
        _ = somelibrary.NONE


def test_a_package_that_is_missing_or_imported_stays_as_it_is(library: Path) -> None:
    without_package("a_package_that_nobody_installs")
    import somelibrary

    without_package("somelibrary")
    assert sys.modules["somelibrary"] is somelibrary


def test_a_library_is_imported_without_a_module_which_another_importer_gets(library: Path) -> None:
    without_package("somelibrary")
    import_without({"somelibrary.other": {"USED": 5}}, "somelibrary.light")
    import somelibrary.light

    assert somelibrary.light.USED == 5
    import somelibrary.other  # type: ignore[import-not-found]

    assert somelibrary.other.USED == 4
    (library / "late.py").write_text("from somelibrary.other import USED\n")
    import_without({"somelibrary.other": {"USED": 6}}, "somelibrary.late")
    assert sys.modules["somelibrary.late"].USED == 4, "a module that is imported stays"


@pytest.mark.parametrize("more", ["from somelibrary.other import MORE", "import somelibrary.other as o; o.MORE"])
def test_a_version_that_needs_more_is_imported_in_the_ordinary_way(more: str, library: Path) -> None:
    (library / "other.py").write_text("USED = 4\nMORE = 5\n")
    (library / "light.py").write_text(f"from somelibrary.other import USED\n{more}\n")
    without_package("somelibrary")
    import_without({"somelibrary.other": {"USED": 6}}, "somelibrary.light")
    import somelibrary.light

    assert somelibrary.light.USED == 4


def test_the_error_of_a_library_is_that_of_the_ordinary_import(library: Path) -> None:
    (library / "light.py").write_text("raise OSError('no shared library')\n")
    without_package("somelibrary")
    import_without({}, "somelibrary.light", "a_package_that_nobody_installs")
    with pytest.raises(OSError, match="no shared library"):
        import somelibrary.light  # noqa: F401


# What each of these libraries gets in place of a module, with one name less: as if a new version needed one more.
PARTS = {
    "mullama.struct": "system",
    "mullama.server.http.uvicorn_parts": "STARTUP_FAILURE",
    "mullama.manifest.spec.core": "ErrorType",
    "mullama.engines.llamacpp.binding.context": "NDArray",
    "mullama.engines.llamacpp.binding.model": "TypeAlias",
}


@pytest.mark.parametrize("module", PARTS)
def test_each_library_is_imported_also_where_it_needs_more(module: str) -> None:
    if "llamacpp" in module:
        pytest.importorskip("llama_cpp")
    program = f"""
import sys
import mullama.imports
whole, lacked = mullama.imports.import_without, []
def lacking(modules, *names):
    lacked.extend(name for contents in modules.values() for name in contents if name == {PARTS[module]!r})
    contents = lambda module: {{name: item for name, item in module.items() if name != {PARTS[module]!r}}}
    whole({{name: contents(module) for name, module in modules.items()}}, *names)
mullama.imports.import_without = lacking
import {module}
assert lacked, "the name is in use"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_reader_of_yaml_refuses_the_same_characters_as_the_library() -> None:
    program = "import re; print(re.compile); from {} import Reader; print(re.compile); print(Reader.NON_PRINTABLE)"
    own = subprocess.run(
        [sys.executable, "-c", program.format("mullama.manifest.load.yaml_parts")], capture_output=True, check=True
    ).stdout.splitlines()
    assert own[0] == own[1], "`re.compile` is the library's again"
    from mullama.manifest.load import yaml_parts

    every = "".join(map(chr, range(sys.maxunicode + 1)))
    refused = [found.start() for found in re.finditer(yaml_parts._UNPRINTABLE, every)]
    assert [found.start() for found in re.finditer(yaml_parts._SAME, every)] == refused
    assert yaml_parts.Reader.NON_PRINTABLE.pattern in (yaml_parts._SAME, yaml_parts._UNPRINTABLE)


def test_the_library_writes_the_pattern_as_it_is_replaced() -> None:
    program = "from yaml.reader import Reader; from mullama.manifest.load import yaml_parts as p; "
    program += "assert Reader.NON_PRINTABLE.pattern == p._UNPRINTABLE"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_setting_that_another_version_of_uvicorn_reads_has_its_default() -> None:
    from mullama.server.http.uvicorn_parts import Config

    config = Config(loaded_app=None, timeout_keep_alive=5.0)
    assert (config.timeout_keep_alive, config.date_header, config.backlog) == (5.0, True, 2048)
    with pytest.raises(AttributeError):
        _ = config.no_version_has_this
