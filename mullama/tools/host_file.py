"""The commands that this machine allows as servers of tools.

A manifest may come from a repository, so it runs no program: it names one of these commands. The file has the form of
other tools, `{"mcpServers": {NAME: {"command": …, "args": […], "env": {…}, "cwd": …}}}`, and only root or the user of
the server can have written it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mullama.errors import ToolsUnavailable
from mullama.names import suggest
from mullama.struct import Struct, field, repr_without

VARIABLE: Final = "MULLAMA_MCP_HOST_FILE"
DEFAULT: Final = "/etc/mullama/mcp.json"
_MOST_BYTES: Final = 1024**2


class HostCommand(Struct, frozen=True, kw_only=True):
    """A command that is a server of tools over its standard input and output."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables beside PATH, HOME, USER and SHELL. No other one of the environment of the server is passed on."""
    cwd: str | None = None

    __repr__ = repr_without("env")


def host_command(name: str, env: Mapping[str, str]) -> HostCommand:
    """Return the command that the host file has under a name; raise `ToolsUnavailable` with the reason."""
    path = Path(env.get(VARIABLE) or DEFAULT)
    servers = _servers(path)
    if name not in servers:
        near = suggest(name, servers)
        known = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(servers)) or 'none'}"
        raise ToolsUnavailable(f"{path} allows no command {name[:80]!r}", hint=known)
    return _command(servers[name], f"{path}: {name}")


def _servers(path: Path) -> Mapping[str, Any]:
    try:
        tree = json.loads(_text(path))
    except ValueError as error:
        raise ToolsUnavailable(f"{path} is not JSON: {error}", hint=_FORM) from error
    servers = tree.get("mcpServers") if isinstance(tree, dict) else None
    if not isinstance(servers, dict):
        raise ToolsUnavailable(f"{path} has no object mcpServers", hint=_FORM)
    return servers


_FORM: Final = '{"mcpServers": {"NAME": {"command": "PROGRAM", "args": []}}}'


def _text(path: Path) -> str:
    """Return the content of the file, which only root and this user can have written."""
    try:
        with path.open("rb") as file:
            _require_own(os.fstat(file.fileno()), path)
            _require_own(path.parent.stat(), path.parent)
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ToolsUnavailable(
            f"{path} does not exist, so this machine allows no commands", hint=f"{VARIABLE} names another file"
        ) from error
    except OSError as error:
        raise ToolsUnavailable(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ToolsUnavailable(f"{path} has more than {_MOST_BYTES} bytes")
    return data.decode("utf-8", "replace")


def _require_own(found: os.stat_result, path: Path) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise ToolsUnavailable(
            f"{path} belongs to another user, who could run programs here", hint="make root its owner"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise ToolsUnavailable(f"others can write {path}, and run programs here", hint=f"chmod go-w {path}")


def _command(tree: Any, name: str) -> HostCommand:
    entry = tree if isinstance(tree, dict) else {}
    command, args, env, cwd = (entry.get(key) for key in ("command", "args", "env", "cwd"))
    if entry.get("disabled") is True:
        raise ToolsUnavailable(f"{name} is disabled in the host file")
    if not isinstance(command, str) or not command:
        raise ToolsUnavailable(f"{name} has no command", hint="a server with an address is declared by url")
    args, env = args if args is not None else [], env if env is not None else {}
    if not isinstance(args, list) or not all(isinstance(value, str) for value in args):
        raise ToolsUnavailable(f"{name}: args is not a list of texts")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise ToolsUnavailable(f"{name}: env is not a map of texts")
    if cwd is not None and not isinstance(cwd, str):
        raise ToolsUnavailable(f"{name}: cwd is not a text")
    return HostCommand(command=command, args=tuple(args), env=env, cwd=cwd)
