"""Embeddings and rankings that a peer computes."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
import time
from typing import Any

from mullama.chat import types as chat
from mullama.errors import Unavailable
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.runtime.base import Caller
from mullama.runtime.metering import LastAttempt, Metered, RequestResult
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.peers.request_form import embedding_body, rerank_body


async def embed_by_peer(
    book: PeerBook, request: chat.EmbedRequest, caller: Caller, metrics: Metrics, usage: LastAttempt
) -> chat.Vectors:
    """Return the vectors of the inputs. request.model is `MODEL@PEER`."""
    model, _, peer = request.model.rpartition(PEER_SIGN)
    body = embedding_body(request, model)
    return vectors_of(await _asked(book, request, caller, metrics, usage, "/v1/embeddings", body), request, peer)


async def rank_by_peer(
    book: PeerBook, request: chat.RerankRequest, caller: Caller, metrics: Metrics, usage: LastAttempt
) -> chat.Ranking:
    """Return the ranking of the documents. request.model is `MODEL@PEER`."""
    model, _, peer = request.model.rpartition(PEER_SIGN)
    body = rerank_body(request, model)
    return ranking_of(await _asked(book, request, caller, metrics, usage, "/v1/rerank", body), request, peer)


async def _asked(
    book: PeerBook,
    request: chat.EmbedRequest | chat.RerankRequest,
    caller: Caller,
    metrics: Metrics,
    usage: LastAttempt,
    path: str,
    body: dict[str, Any],
) -> Any:
    """Return the JSON of the answer, and meter the request."""
    begun, tokens = time.monotonic(), 0
    result: RequestResult = "error"
    try:
        tree = await book.ask(request.model, path, body, caller.hops)
        result, tokens = "ok", used_tokens(tree)
        return tree
    except asyncio.CancelledError:
        result = "cancelled"
        raise
    finally:
        counts, seconds = metrics.of(request.model), time.monotonic() - begun
        counts.add_end(result, seconds)
        counts.prompt_tokens += tokens
        usage.add(
            Metered(
                key=caller.key, route=caller.route or request.model, model=request.model,
                usage=chat.Usage(prompt_tokens=tokens), seconds=seconds, result=result,
            )
        )  # fmt: skip


def vectors_of(tree: Any, request: chat.EmbedRequest, name: str) -> chat.Vectors:
    """Return the vectors of an answer of /v1/embeddings, in the order of the inputs, normalised if the request wants.

    name: of the peer, for errors. Raises `Unavailable` for an answer of another form.
    """
    try:
        rows = sorted(tree["data"], key=lambda row: row["index"])
        vectors = tuple(_vector(row["embedding"]) for row in rows)
    except (KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise Unavailable(f"peer {name} sent embeddings of another form: {error}") from error
    if len(vectors) != len(request.inputs):
        raise Unavailable(f"peer {name} sent {len(vectors)} embeddings for {len(request.inputs)} inputs")
    if request.normalize:
        vectors = tuple(map(_unit, vectors))
    used = chat.Usage(prompt_tokens=used_tokens(tree))
    return chat.Vectors(vectors=vectors, usage=used, answered_by=request.model)


def ranking_of(tree: Any, request: chat.RerankRequest, name: str) -> chat.Ranking:
    """Return the ranking of an answer of /v1/rerank, best first. Raises as `vectors_of`."""
    try:
        results = [(int(row["index"]), float(row["relevance_score"])) for row in tree["results"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Unavailable(f"peer {name} sent a ranking of another form: {error}") from error
    if any(not 0 <= index < len(request.documents) for index, _ in results):
        raise Unavailable(f"peer {name} ranked a document that was not sent")
    results.sort(key=lambda item: -item[1])
    used = chat.Usage(prompt_tokens=used_tokens(tree))
    return chat.Ranking(results=tuple(results[: request.top_n]), usage=used, answered_by=request.model)


def used_tokens(tree: Any) -> int:
    """Return the tokens of the inputs as an answer counts them; 0 if it does not."""
    counted = tree.get("usage") if isinstance(tree, dict) else None
    tokens = (counted.get("prompt_tokens") or counted.get("total_tokens")) if isinstance(counted, dict) else None
    return max(0, tokens) if isinstance(tokens, int) else 0


def _vector(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        data = base64.b64decode(value, validate=True)
        return struct.unpack(f"<{len(data) // 4}f", data)
    return tuple(map(float, value))


def _unit(vector: tuple[float, ...]) -> tuple[float, ...]:
    length = math.sqrt(sum(x * x for x in vector))
    return tuple(x / length for x in vector) if length else vector
