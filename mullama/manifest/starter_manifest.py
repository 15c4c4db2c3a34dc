"""The manifest that `mullama init` writes: small, valid and commented."""

from __future__ import annotations

from mullama.manifest.scalars import read_plain

_TEXT = """\
# yaml-language-server: $schema={schema}
# (`mullama schema > {file}` writes the schema, which lets editors complete and check this file.)
#
# The models of this machine. `mullama diff` shows what would change and `mullama apply` applies it.
# A running server watches this file: save it, and the next request uses the change.
mullama: v1

models:
  {name}:
    # builtin:NAME, hf:org/repo:QUANT, https://…gguf, or a path such as ./gguf/model.gguf
    from: {source}

    # Tokens of one request. A change makes a new context; the weights stay loaded.
    # context: {{size: 8192}}

    # The next request uses these; nothing is loaded again:
    # system: You answer briefly.
    # parameters: {{temperature: 0.3, stop: ["###"]}}

    # Load with the server, and unload after 15 minutes without a request:
    # residency: {{load: at_start, ttl: 15m}}

# Additional names for models; `default` is the model for requests that name none.
routes:
  default: {name}

# Access from other machines needs keys. Secrets are references to a variable or file:
# server: {{listen: ["0.0.0.0:11434"]}}
# auth:
#   keys:
#     me: {{secret: {{from_env: MULLAMA_KEY}}}}
"""

SCHEMA = "./mullama.schema.json"


def starter(*, name: str = "chat", source: str = "builtin:tiny", schema: str = SCHEMA) -> str:
    """Return a manifest of one model. `schema` is the path or URL of the JSON Schema."""
    return _TEXT.format(name=_quoted(name), source=_quoted(source), schema=schema, file=schema.removeprefix("./"))


def _quoted(text: str) -> str:
    """Return text unquoted if YAML reads it as text, else in single quotes."""
    plain = text.startswith(("/", "./")) or (text[:1].isalpha() and read_plain(text) == text)
    if plain and not set(text) & set("#{}[],&*!|>'\"%@` \t") and ": " not in text and not text.endswith(":"):
        return text
    return "'" + text.replace("'", "''") + "'"
