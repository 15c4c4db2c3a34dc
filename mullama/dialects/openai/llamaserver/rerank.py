"""Reranking in two forms: Jina's and text-embeddings-inference's."""

from __future__ import annotations

from mullama.chat.types import Ranking, RerankRequest
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.inputs import MOST_INPUTS
from mullama.dialects.reply_values import finite
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import replace


class RerankCall(RerankRequest, frozen=True, kw_only=True):
    """Documents to order. `with_text` repeats the documents; `flat` returns a list of scores only."""

    with_text: bool = False
    flat: bool = False


def _document(value: JSONValue, path: str) -> str:
    """Return the text of a document, which may be an object."""
    if isinstance(value, str):
        return value
    return fields.Body(value, path).need(fields.text("text"))


_QUERY = fields.text("query")
_DOCUMENTS: fields.Field[tuple[str, ...]] = fields.many(
    "documents", _document, schema.either(schema.STRING, schema.RECORD), MOST_INPUTS
)
_TEXTS = _DOCUMENTS.named("texts")
_TOP_N = fields.integer("top_n", 1, MOST_INPUTS)
_WITH_DOCUMENTS = fields.flag("return_documents")
_WITH_TEXT = fields.flag("return_text")


def decode(request: WireRequest) -> RerankCall:
    body = fields.body_of(request.body)
    query = body.need(_QUERY)
    documents = body.first(_DOCUMENTS, _TEXTS)
    if not documents:
        raise Invalid("documents must be a list of at least one text", field="documents")
    flat = body.has("texts") and not body.has("documents")
    return RerankCall(
        model=fields.model_named(body),
        query=query,
        documents=documents,
        top_n=body.get(_TOP_N),
        with_text=bool(body.first(_WITH_DOCUMENTS, _WITH_TEXT)),
        flat=flat,
    )


def encode(context: ReplyContext[RerankCall, Ranking]) -> Reply:
    """Return the best `top_n` documents, best first."""
    best = context.result.results[: context.operation.top_n]
    if context.operation.flat:
        return Reply(body=[_flat(context.operation, index, score) for index, score in best])
    tokens = context.result.usage.prompt_tokens
    return Reply(
        body={
            "model": context.operation.model,
            "object": "list",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": [_nested(context.operation, index, score) for index, score in best],
        }
    )


def _flat(operation: RerankCall, index: int, score: float) -> JSONValue:
    text = {"text": operation.documents[index]} if operation.with_text else {}
    return {"index": index, "score": finite(score), **text}


def _nested(operation: RerankCall, index: int, score: float) -> JSONValue:
    document = {"document": {"text": operation.documents[index]}} if operation.with_text else {}
    return {"index": index, "relevance_score": finite(score), **document}


_RERANK = Endpoint(
    method="POST",
    path="/v1/rerank",
    decode=decode,
    encode=encode,
    summary="Rerank documents by their relevance to a query",
    request_schema=fields.request_schema(
        fields.MODEL, _QUERY, _DOCUMENTS, _TEXTS, _TOP_N, _WITH_DOCUMENTS, _WITH_TEXT, required="query"
    ),
    response_schema=schema.either(
        schema.record(
            "model object usage results",
            model=schema.STRING,
            object=schema.constant("list"),
            usage=schema.RECORD,
            results=schema.listed(
                schema.record("index relevance_score", index=schema.COUNT, relevance_score=schema.NUMBER)
            ),
        ),
        schema.listed(schema.record("index score", index=schema.COUNT, score=schema.NUMBER)),
    ),
)

ENDPOINTS = tuple(replace(_RERANK, path=path) for path in ("/v1/rerank", "/v1/reranking", "/rerank", "/reranking"))
