"""The manifest that `mullama init` writes: small, commented, and valid as it is."""

from __future__ import annotations

from mullama.manifest.scalars import read_plain

_TEXT = """\
# yaml-language-server: $schema={schema}
# (`mullama schema > {file}` writes what editors complete and check this file with.)
#
# What this machine serves. `mullama diff` shows what would change, `mullama apply` makes it so,
# and a running server follows this file: save it, and the next request sees the change.
mullama: v1

models:
  {name}:
    # builtin:NAME, hf:org/repo:QUANT, https://…gguf, or a path such as ./gguf/model.gguf
    from: {source}

    # How much one request may use. A change makes a new context over the loaded weights.
    # context: {{size: 8192}}

    # Seen by the next request, nothing is loaded again:
    # system: You answer briefly.
    # parameters: {{temperature: 0.3, stop: ["###"]}}

    # In memory from the start, and until 15 minutes without a request:
    # residency: {{load: at_start, ttl: 15m}}

# Further names for clients; `default` answers when a request names no model.
routes:
  default: {name}

# Beyond this machine, keys are needed; a secret is named here, never written:
# server: {{listen: ["0.0.0.0:11434"]}}
# auth:
#   keys:
#     me: {{secret: {{from_env: MULLAMA_KEY}}}}
"""

SCHEMA = "./mullama.schema.json"


def starter(*, name: str = "chat", source: str = "builtin:tiny", schema: str = SCHEMA) -> str:
    """A manifest of one model. `schema` is what editors check it against."""
    return _TEXT.format(name=_quoted(name), source=_quoted(source), schema=schema, file=schema.removeprefix("./"))


def _quoted(text: str) -> str:
    """Plain where YAML reads it as text, else in single quotes."""
    plain = text.startswith(("/", "./")) or (text[:1].isalpha() and read_plain(text) == text)
    if plain and not set(text) & set("#{}[],&*!|>'\"%@` \t") and ": " not in text and not text.endswith(":"):
        return text
    return "'" + text.replace("'", "''") + "'"
