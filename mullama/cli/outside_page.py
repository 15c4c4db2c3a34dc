"""The reference page of everything that guides to other programs name and mullama refuses."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.cli.app import unsupported
from mullama.dialects import DIALECTS
from mullama.dialects.base import Endpoint, Reply, StaticReply, WireRequest
from mullama.errors import MullamaError
from mullama.server.outside import ENDPOINTS

_BEYOND = (
    "**Libraries for other languages** (Rust, Node.js, Go, PHP, C). The Python package is the only library; other "
    "languages use the HTTP APIs with the clients of Ollama, OpenAI or Anthropic.",
    "**Other files than GGUF** (safetensors, PyTorch, AWQ, GPTQ, UQFF). Convert them with llama.cpp.",
    "**Video** as input, and images, sound and video as output.",
    "**Training** of models and adapters.",
    "**One model on several machines.** A proxy distributes requests over servers.",
    "**Tools that the server calls** (web search, MCP, code). The client calls tools.",
    "**A database of statistics.** `/metrics` serves them to Prometheus.",
    "**An installer script.** The package manager installs mullama.",
)


def outside_page(note: str) -> str:
    """Return the page. Each row of its tables is refused with the text beside it."""
    lines = ["# Outside, and the reason", "", note, ""]
    lines += ["Guides to Ollama, llama.cpp, mistral.rs and LocalAI name things that mullama does not have."]
    lines += ["Each of them is refused with the text below: the equivalent, or the reason that there is none.", ""]
    lines += _table("Commands", "command", unsupported.COMMANDS.items())
    lines += _table("Arguments", "arguments", unsupported.arguments())
    lines += _table("Options of every command", "option", unsupported.EVERYWHERE.items())
    lines += _table("Endpoints", "path", (*ENDPOINTS.items(), *_refusing_endpoints()))
    lines += ["## Beyond the program", "", *(f"- {text}" for text in _BEYOND)]
    return "\n".join(lines) + "\n"


def _refusing_endpoints() -> Iterable[tuple[str, str]]:
    """Yield the endpoints of the dialects that answer every request with a reason."""
    for dialect in DIALECTS.values():
        for endpoint in dialect.endpoints:
            if (reason := _reason_of(endpoint)) is not None:
                yield f"{endpoint.method} {endpoint.path}", reason


def _reason_of(endpoint: Endpoint) -> str | None:
    try:
        operation = endpoint.decode(WireRequest(path={}, query={}, headers={}))
    except (MullamaError, KeyError):  # the answer depends on the request
        return None
    reply = operation.reply if isinstance(operation, StaticReply) else Reply()
    error = reply.body.get("error") if reply.status >= 400 and isinstance(reply.body, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    return text if isinstance(text, str) else None


def _table(head: str, first: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    cells = (f"| `{name}` | {text} |" for name, text in rows)
    return [f"## {head}", "", f"| {first} | instead, or the reason |", "|---|---|", *cells, ""]
