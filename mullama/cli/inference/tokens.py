"""`mullama tokenize` and `mullama embed`: tokens and embeddings of texts."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.models.load import default_model, resolve_model
from mullama.cli.server.ensure import ensure_server, instance_options
from mullama.units import counted

_SHOWN = 8


def tokenize_options(parser: Parser) -> None:
    instance_options(parser)
    json_option(parser)
    parser.add_argument("text", nargs="*", metavar="TEXT", help="the text; without it or with -, standard input")
    parser.add_argument("-m", "--model", metavar="NAME", help="the model (default: the default model)")


def tokenize(call: CommandContext) -> int:
    """Print the number of tokens of a text and their ids."""
    text, server = _text(call), ensure_server(call)
    model = resolve_model(call, server, call.options.model or default_model(server))["name"]
    body = {"model": model, "content": text, "with_pieces": True}
    tokens = server.client.post("/api/models/tokenize", body, within=3600.0)["tokens"]
    ids = [token["id"] for token in tokens]
    if call.options.json:
        call.terminal.json({"model": model, "count": len(ids), "tokens": ids})
    else:
        call.terminal.line(counted(len(ids), "token"))
        call.terminal.line(" ".join(map(str, ids)))
    return DONE


def _text(call: CommandContext) -> str:
    words = call.options.text
    return " ".join(words) if words and words != ["-"] else call.terminal.source.read()


def embed_options(parser: Parser) -> None:
    instance_options(parser)
    json_option(parser)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to embed; without any, standard input")
    parser.add_argument("-m", "--model", metavar="NAME", help="the model (default: the default model)")
    parser.add_argument("--dimensions", type=int, metavar="N", help="keep the first N numbers, scaled to length 1")
    parser.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, default=True,
        help="scale embeddings to length 1 (default)",
    )  # fmt: skip
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="print the cosine similarity of two texts")


def embed(call: CommandContext) -> int:
    """Print the embeddings of texts, or the similarity of two."""
    options = call.options
    if options.compare and options.texts:
        raise UsageError("--compare takes exactly two texts")
    texts = list(options.compare or options.texts) or [call.terminal.source.read()]
    if "" in texts:
        raise UsageError("a text to embed is empty", hint="mullama embed TEXT, or pipe one in")
    server = ensure_server(call)
    model = resolve_model(call, server, options.model or default_model(server))["name"]
    answer = embeddings_of(server, model, texts, dimensions=options.dimensions, normalize=options.normalize)
    if options.compare:
        _compare(call, texts, answer["embeddings"])
    elif options.json:
        call.terminal.json(_tree(answer, answer["embeddings"]))
    else:
        _print(call, answer)
    return DONE


def embeddings_of(server: FoundServer, model: str, texts: list[str], **fields: Any) -> dict[str, Any]:
    """Return `embeddings`, one for each text, and `prompt_eval_count`.

    fields: further fields of the request; one that is None is left out.
    """
    body = {"model": model, "input": texts, **{name: value for name, value in fields.items() if value is not None}}
    return dict(server.client.post("/api/models/embed", body, within=3600.0))


def _print(call: CommandContext, answer: Mapping[str, Any]) -> None:
    """Print the first numbers of each embedding."""
    vectors = answer["embeddings"]
    tokens = counted(answer.get("prompt_eval_count") or 0, "token")
    call.terminal.line(f"{answer['model']}: dimension {len(vectors[0])}, {tokens}")
    for vector in vectors:
        more = " …" if len(vector) > _SHOWN else ""
        call.terminal.line(" ".join(f"{number:.6f}" for number in vector[:_SHOWN]) + more)


def _compare(call: CommandContext, texts: list[str], vectors: list[list[float]]) -> None:
    similarity = cosine(*vectors)
    if call.options.json:
        call.terminal.json({"texts": texts, "similarity": similarity})
    else:
        call.terminal.line(f"{similarity:.4f}")


def cosine(a: list[float], b: list[float]) -> float:
    """Return the cosine of the angle between two vectors, 0 when one has no length."""
    length = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def _tree(answer: dict[str, Any], vectors: list[list[float]]) -> dict[str, Any]:
    """Return the JSON form: `embedding` for one text, `embeddings` for several."""
    shared = {
        "model": answer["model"],
        "dimension": len(vectors[0]),
        "prompt_tokens": answer.get("prompt_eval_count") or 0,
    }
    if len(vectors) == 1:
        return {**shared, "embedding": vectors[0]}
    return {**shared, "count": len(vectors), "embeddings": vectors}
