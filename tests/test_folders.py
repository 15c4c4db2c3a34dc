"""The folders of a user, by variable and by platform."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS

from mullama.folders import config_root, data_root, is_own_folder, memory_folder, state_root

Root = Callable[[Mapping[str, str]], Path]


@pytest.mark.parametrize(
    ("root", "own", "xdg", "usual"),
    [
        (data_root, "MULLAMA_CACHE_DIR", "XDG_DATA_HOME", ".local/share"),
        (state_root, "MULLAMA_STATE_DIR", "XDG_STATE_HOME", ".local/state"),
        (config_root, None, "XDG_CONFIG_HOME", ".config"),
    ],
)
def test_a_folder_follows_the_environment(root: Root, own: str | None, xdg: str, usual: str) -> None:
    assert root({"HOME": "/h"}) == Path("/h", usual, "mullama")
    assert root({"HOME": "/h", xdg: "/x"}) == Path("/x/mullama")
    if own is not None:
        assert root({"HOME": "/h", xdg: "/x", own: "/own"}) == Path("/own")
        assert root({own: "~/own"}) == Path.home() / "own"


def test_macos_has_its_own_folders_and_the_variables_go_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    monkeypatch.setenv("HOME", "/h")
    for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    support = Path("/h/Library/Application Support/mullama")
    assert (data_root({}), state_root({}), config_root({})) == (support, support / "state", support)
    assert state_root({"XDG_STATE_HOME": "/x"}) == Path("/x/mullama")


def test_only_a_file_system_of_its_own_is_memory(tmp_path: Path) -> None:
    assert memory_folder("k", tmp_path) is None
    found = memory_folder("k", Path(tmp_path.anchor))
    assert found is not None
    assert found.name.startswith("mullama-")


def test_a_folder_is_ones_own_if_nobody_else_may_enter_it(tmp_path: Path) -> None:
    assert is_own_folder(tmp_path / "new")
    assert is_own_folder(tmp_path / "new")
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    (tmp_path / "file").touch()
    assert not any(is_own_folder(tmp_path / name) for name in ("open", "link", "file", "missing/below"))
