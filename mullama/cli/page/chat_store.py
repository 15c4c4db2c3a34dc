"""The conversations of this user on disk: one file each, which only this user may read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from mullama.cli.page.chat_log import ChatLog
from mullama.codec import from_tree, to_tree
from mullama.errors import MullamaError, NotFound
from mullama.folders import data_root
from mullama.store.disk import write_atomic

_KEPT = 500  # conversations; the oldest ones are deleted


class ChatStore:
    """Reads and writes the folder `chats` beside the weights."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.folder = data_root(env) / "chats"

    def new_id(self, now: float) -> str:
        """Return an id that sorts by time and that no other conversation has."""
        return f"{int(now * 1000):013d}-{secrets.token_hex(3)}"

    def save(self, log: ChatLog) -> None:
        """Write a conversation, and delete the oldest ones above 500. Raises `OSError` where it cannot be written."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._path(log.id), json.dumps(to_tree(log), ensure_ascii=False).encode(), durable=False)
        for path in self._paths()[:-_KEPT]:
            path.unlink(missing_ok=True)

    def all(self) -> list[ChatLog]:
        """Return the conversations that can be read."""
        found = (self._read(path) for path in self._paths())
        return [log for log in found if log is not None]

    def find(self, id: str) -> ChatLog:
        """Return a conversation; raise `NotFound` for one that is gone or cannot be read."""
        log = self._read(self._path(id))
        if log is None:
            raise NotFound(f"the conversation in {self._path(id)} cannot be read")
        return log

    def delete(self, id: str) -> None:
        self._path(id).unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"))

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.json"

    def _read(self, path: Path) -> ChatLog | None:
        try:
            return from_tree(ChatLog, json.loads(path.read_bytes()), "conversation")
        except (OSError, ValueError, MullamaError):  # of a later version, or damaged: it stays where it is
            return None
