"""The folders of this user: where weights, state and settings are kept, by variable or by the platform's convention."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platformdirs.api import PlatformDirsABC

_NAME = "mullama"


def data_root(env: Mapping[str, str]) -> Path:
    """Return the folder of the store: MULLAMA_CACHE_DIR, else below the platform's folder for data."""
    if path := env.get("MULLAMA_CACHE_DIR"):
        return Path(path).expanduser()
    return _xdg(env, env.get("XDG_DATA_HOME"), ".local/share") or _platform().user_data_path


def state_root(env: Mapping[str, str]) -> Path:
    """Return the folder of all instances: MULLAMA_STATE_DIR, else below the platform's folder for state."""
    if path := env.get("MULLAMA_STATE_DIR"):
        return Path(path).expanduser()
    # macOS and Windows have one folder for data and state, and each folder in this one is an instance.
    return _xdg(env, env.get("XDG_STATE_HOME"), ".local/state") or _platform().user_state_path / "state"


def config_root(env: Mapping[str, str]) -> Path:
    """Return the folder of the user's own settings."""
    return _xdg(env, env.get("XDG_CONFIG_HOME"), ".config") or _platform().user_config_path


def _xdg(env: Mapping[str, str], base: str | None, usual: str) -> Path | None:
    """Return the folder by the XDG convention; None where neither its variable nor the platform asks for it."""
    if base:
        return Path(base) / _NAME
    if sys.platform in ("darwin", "win32"):
        return None
    return Path(env.get("HOME") or Path.home()) / usual / _NAME


def _platform() -> PlatformDirsABC:
    import platformdirs  # most systems follow the XDG convention, and commands start faster without it

    return platformdirs.PlatformDirs(_NAME, appauthor=False)
