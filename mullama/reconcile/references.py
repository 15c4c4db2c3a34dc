"""What the state folders that share one cache refer to, so that a prune for one keeps what another needs.

Each state folder has a number of its own and keeps its list in the cache, under `references/`, where whoever can
delete a file can read it, also from a machine or a container that does not see that state folder.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from mullama.errors import Invalid, Unavailable
from mullama.names import Digest
from mullama.store.disk import write_atomic

_NUMBER = "cache-references"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The digests that one state folder refers to. here: whether that folder can be read, and knows better."""

    state: Path
    digests: frozenset[str]
    here: bool


def declare(state: Path, cache: Path, digests: Collection[str]) -> None:
    """Write the list of this state folder, if it has changed."""
    path = cache / "references" / f"{_number(state) or _begin(state)}.json"
    text = json.dumps({"state": str(state.absolute()), "digests": sorted(digests)}, indent=1)
    if not path.is_file() or path.read_text() != text:
        write_atomic(path, text.encode())
        path.chmod(0o644)


def others(state: Path, cache: Path) -> Iterator[Claim]:
    """What every other state folder refers to; `Unavailable` for a list that cannot be read: it may name any file."""
    mine = _number(state)
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
            hint="it says what another server needs of this cache; delete it if that server is gone",
        ) from error
    return Claim(state=state, digests=digests, here=_number(state) == path.stem)


def _number(state: Path) -> str:
    """What tells this state folder from all others, "" for none yet."""
    try:
        return (state / _NUMBER).read_text().strip()
    except OSError:
        return ""


def _begin(state: Path) -> str:
    number = secrets.token_hex(16)
    write_atomic(state / _NUMBER, number.encode())
    return number
