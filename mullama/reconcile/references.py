"""The files that state folders refer to. A prune for one folder keeps the files of all others that share the store.

Each state folder has an id, and keeps its list in the store under `references/`. Any process that can delete a file can
read the lists there, also on a machine or in a container without access to the state folder.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

from mullama.errors import Invalid, Unavailable
from mullama.names import Digest
from mullama.store.disk import write_atomic
from mullama.struct import Struct

_ID_FILE = "cache-references"


class Claim(Struct, frozen=True, kw_only=True):
    """The list of one state folder."""

    state: Path
    digests: frozenset[str]
    here: bool
    """True if the state folder can be read. It is then used instead of its list."""


def declare(state: Path, cache: Path, digests: Collection[str]) -> None:
    """Write the list of a state folder, if it has changed."""
    path = cache / "references" / f"{_id(state) or _create_id(state)}.json"
    text = json.dumps({"state": str(state.absolute()), "digests": sorted(digests)}, indent=1)
    if not path.is_file() or path.read_text() != text:
        write_atomic(path, text.encode())
        path.chmod(0o644)


def others(state: Path, cache: Path) -> Iterator[Claim]:
    """Yield the lists of all other state folders. Raises `Unavailable` for one that cannot be read."""
    mine = _id(state)
    for path in sorted((cache / "references").glob("*.json")):
        if path.stem != mine:
            yield _read(path)


def _read(path: Path) -> Claim:
    try:
        tree = json.loads(path.read_text())
        state, digests = Path(tree["state"]), frozenset(Digest.parse(text).text for text in tree["digests"])
    except (OSError, ValueError, KeyError, TypeError, Invalid) as error:
        raise Unavailable(
            f"{path} cannot be read: {error}",
            hint="it lists the files that another server needs; delete it if that server no longer exists",
        ) from error
    return Claim(state=state, digests=digests, here=_id(state) == path.stem)


def _id(state: Path) -> str:
    """Return the id of a state folder, "" for none yet."""
    try:
        return (state / _ID_FILE).read_text().strip()
    except OSError:
        return ""


def _create_id(state: Path) -> str:
    number = secrets.token_hex(16)
    write_atomic(state / _ID_FILE, number.encode())
    return number
