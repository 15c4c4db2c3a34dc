"""The folders of this user: where weights, state and settings are kept, by variable or by the platform's convention."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platformdirs.api import PlatformDirsABC

_NAME = "mullama"
_MEMORY = Path("/dev/shm")  # Linux has a file system in memory here (glibc needs it for shm_open)


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


def memory_folder(key: str, root: Path = _MEMORY) -> Path | None:
    """Return the path of an instance's folder in main memory; None on a system without a file system there.

    key: unique among the instances of this user. The folder need not exist.
    """
    return root / f"{_NAME}-{os.getuid()}-{key}" if os.path.ismount(root) else None


def is_own_folder(path: str | Path) -> bool:
    """Create a folder that only this user may enter; return False for one that others own or may enter.

    Any user may create a folder of any name in a shared folder like that of the memory.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    status = os.lstat(path)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


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
