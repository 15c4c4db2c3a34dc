"""The wire formats of the conversation vocabulary, one module or package each, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mullama.dialects import anthropic, ollama, openai
from mullama.dialects.base import Dialect

DIALECTS: Mapping[str, Dialect] = {
    "ollama": ollama.DIALECT,
    "openai": openai.DIALECT,
    "anthropic": anthropic.DIALECT,
}


def dialect_for(path: str, headers: Mapping[str, str], served: Sequence[Dialect]) -> Dialect:
    """Return the dialect in which an unknown path is refused; `served` must not be empty.

    The longest prefix of the path decides, and before it the header that every client of Anthropic sends.
    """
    anthropic_clients = [d for d in served if d.name == "anthropic" and "anthropic-version" in headers]
    if anthropic_clients:
        return anthropic_clients[0]
    best, length = served[0], -1
    for dialect in served:
        for prefix in dialect.prefixes:
            if len(prefix) > length and (path == prefix or path.startswith(prefix + "/")):
                best, length = dialect, len(prefix)
    return best
