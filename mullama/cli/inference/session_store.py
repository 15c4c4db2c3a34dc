"""The conversations of this user on disk: one file each, which only this user may read.

The terminal page keeps each conversation under the time of its beginning; `--save-session` keeps one under a name.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from mullama.cli.console.terminal import Terminal
from mullama.cli.inference.conversation import Conversation
from mullama.cli.inference.session_log import CHAT_FORMAT, UNNAMED, ChatLog
from mullama.codec import from_tree, to_tree
from mullama.errors import Conflict, Invalid, MullamaError, NotFound
from mullama.folders import data_root
from mullama.names import suggest
from mullama.store.disk import write_atomic
from mullama.struct import Struct, replace
from mullama.units import ago

_KEPT = 500  # conversations without a name; the oldest ones are deleted
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class DamagedSession(Struct, frozen=True):
    """A file that holds no conversation which this version reads. It stays as it is."""

    path: Path
    reason: str


class ChatStore:
    """Reads and writes the folder `chats` beside the weights."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.folder = data_root(env) / "chats"

    def new_id(self, now: float) -> str:
        """Return an id that sorts by time and that no other conversation has."""
        return f"{int(now * 1000):013d}-{secrets.token_hex(3)}"

    def save(self, log: ChatLog) -> None:
        """Write a conversation, and delete the oldest ones without a name above 500.

        Raises `OSError` where it cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(to_tree(log), ensure_ascii=False, indent=1)
        write_atomic(self.path(log.id), text.encode("utf-8", "backslashreplace"), durable=False)
        unnamed = [path for path in self._paths() if UNNAMED.fullmatch(path.stem)]
        for path in unnamed[:-_KEPT]:
            path.unlink(missing_ok=True)

    def all(self) -> list[ChatLog]:
        """Return the conversations that can be read."""
        return self.scan()[0]

    def scan(self) -> tuple[list[ChatLog], list[DamagedSession]]:
        """Return the conversations that can be read, and the files that cannot be read."""
        found = [self._read(path) for path in self._paths()]
        logs = [one for one in found if isinstance(one, ChatLog)]
        return logs, [one for one in found if isinstance(one, DamagedSession)]

    def find(self, id: str) -> ChatLog:
        """Return a conversation; raise `NotFound` without its file, and `Invalid` for one that cannot be read."""
        found = self._read(self.path(id))
        if isinstance(found, DamagedSession):
            raise Invalid(f"the conversation in {found.path} cannot be read: {found.reason}")
        if found is None:
            names = [path.stem for path in self._paths()]
            near = suggest(id, names)
            hint = f"did you mean {' or '.join(near)}?" if near else "mullama session list prints their names"
            raise NotFound(f"no conversation is named {id!r}", hint=hint, name=id)
        return found

    def require_free(self, id: str) -> None:
        """Raise `Conflict` if a file of this name exists, damaged ones included."""
        if self.path(id).exists():
            raise Conflict(
                f"a conversation named {id!r} exists",
                hint=f"--load-session {id} continues it; mullama session delete {id} deletes it",
            )

    def delete(self, id: str) -> None:
        self.path(id).unlink(missing_ok=True)

    def path(self, id: str) -> Path:
        """Return the file of a conversation."""
        return self.folder / f"{id}.json"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.json"))

    def _read(self, path: Path) -> ChatLog | DamagedSession | None:
        """Return the conversation in a file; None without the file."""
        try:
            log = from_tree(ChatLog, json.loads(path.read_bytes()), "conversation")
        except FileNotFoundError:
            return None
        except OSError as error:
            return DamagedSession(path, error.strerror or str(error))
        except (ValueError, RecursionError, MullamaError) as error:
            return DamagedSession(path, str(error))
        if log.format != CHAT_FORMAT:
            return DamagedSession(path, f"its format is {log.format!r}, and this version reads {CHAT_FORMAT!r}")
        return replace(log, id=path.stem)  # a copied file has the id of its original


def list_sessions(terminal: Terminal, store: ChatStore) -> None:
    """Print the conversations, the last changed first, and name the files that cannot be read."""
    (logs, damaged), now = store.scan(), time.time()
    rows = [
        (log.id, log.model, str(len(log.turns)), ago(max(0.0, now - log.changed)), log.title)
        for log in sorted(logs, key=lambda log: -log.changed)
    ]
    terminal.table(("NAME", "MODEL", "TURNS", "CHANGED", "TITLE"), rows)
    for file in damaged:
        terminal.note(f"warning: {file.path} cannot be read: {file.reason}")


class SessionKeeper:
    """Keeps one conversation under one name."""

    def __init__(self, store: ChatStore, name: str, *, continued: str | None = None) -> None:
        """continued: the name that was read. Raises `Conflict` if another conversation has the name."""
        self.name = session_name(name, any_id=name == continued)
        self._store = store
        if self.name != continued:
            store.require_free(self.name)

    def keep(self, conversation: Conversation) -> None:
        """Write the conversation as it is now. Raises `OSError` where it cannot be written."""
        self._store.save(conversation.log(self.name, time.time()))


def session_name(text: str, *, any_id: bool = False) -> str:
    """Return a name for a conversation; raise `Invalid` for one that is no file name everywhere.

    any_id: also accept the id of a conversation without a name.
    """
    if not _NAME.fullmatch(text) or text.endswith(".") or (UNNAMED.fullmatch(text) and not any_id):
        raise Invalid(
            f"{text[:80]!r} is no name of a conversation",
            hint="1 to 80 letters, digits, '.', '_' and '-', first a letter or digit, such as notes-1",
        )
    return text
