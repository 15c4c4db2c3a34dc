"""Ollama's endpoints that change the inventory: create, pull, copy, delete, blobs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mullama.chat import inventory
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.ollama.chat import MESSAGE_SCHEMA, message
from mullama.dialects.ollama.ndjson import LineStream
from mullama.errors import Invalid, Unsupported
from mullama.names import Digest, JSONValue

_NAME = fields.MODEL.named("name")
_FROM = fields.text("from", 2048)
_TEMPLATE = fields.text("template")
_SYSTEM = fields.text("system")
_PARAMETERS = fields.record("parameters")
_MESSAGES = fields.many("messages", message, MESSAGE_SCHEMA, 4096)
_REQUIRES = fields.text("requires", 64)
"""The least version of Ollama, which has no effect here, as REQUIRES in a Modelfile."""
_QUANTIZE = fields.choice("quantize", ("q4_K_M", "q4_K_S", "q8_0", "Q4_K_M", "Q4_K_S", "Q8_0"))
_MOST_FILES = 1024
_MOST_LICENSES = 64

# Fields of create that are not supported, each with the alternative.
_UNSUPPORTED = {
    "modelfile": "send its parts as fields: from, template, system, parameters",
    "renderer": "the template of the file defines the form of prompts",
    "parser": "the template defines the output format",
    "draft_files": "declare draft in the manifest",
    "draft_quantize": "declare draft in the manifest",
    "info": "the file of the weights has the facts; `requires` of a model in the manifest names capabilities",
    "capabilities": "they are those of the file and its template; `requires` in the manifest demands some",
}


def _model(body: fields.Body) -> str:
    model = body.first(fields.MODEL, _NAME)
    if not model:
        raise Invalid("model is required", field="model")
    return model


def _streams(body: fields.Body) -> bool:
    stream = body.get(fields.STREAM)
    return True if stream is None else stream


def digest_of(value: JSONValue, path: str) -> str:
    """Return a digest of either of Ollama's spellings as `sha256:` and lower-case hex."""
    text = fields.to_text(value, path)
    if not re.fullmatch(r"sha256[:-][0-9a-fA-F]{64}", text):
        raise Invalid(f"{path} is not a digest: {text[:80]!r}", field=path, hint="sha256: and 64 hex digits")
    return str(Digest.parse(text.lower().replace("-", ":", 1)))


def _files(value: JSONValue, path: str) -> dict[str, str]:
    body = fields.Body(value, path)
    names = list(body.names())
    if len(names) > _MOST_FILES:
        raise Invalid(f"{path} has more than {_MOST_FILES} files", field=path)
    return {name: digest_of(body.raw(name), f"{path}.{name}") for name in names}


def _license(value: JSONValue, path: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return fields.to_list(value, path, fields.to_text, _MOST_LICENSES)


_FILES: fields.Field[dict[str, str]] = fields.Field("files", _files, schema.mapped(schema.STRING))
_ADAPTERS: fields.Field[dict[str, str]] = _FILES.named("adapters")
_LICENSE: fields.Field[tuple[str, ...]] = fields.Field(
    "license", _license, schema.either(schema.STRING, schema.listed(schema.STRING))
)


def decode_create(request: WireRequest) -> inventory.CreateModel:
    """Decode the creation of a model from another one or from uploaded files."""
    body = fields.body_of(request.body)
    name = _model(body)
    for field, instead in _UNSUPPORTED.items():
        if body.has(field):
            raise Unsupported(f"{field} is not supported by create", hint=instead, field=field)
    body.get(_REQUIRES)
    base, files = body.get(_FROM), body.get(_FILES) or {}
    if not base and not files:
        raise Invalid("neither 'from' or 'files' was specified", field="from")
    return inventory.CreateModel(
        name=name,
        base=base or None,
        files=files,
        adapters=body.get(_ADAPTERS) or {},
        template=body.get(_TEMPLATE),
        system=body.get(_SYSTEM),
        license=body.get(_LICENSE) or (),
        parameters=body.get(_PARAMETERS) or {},
        messages=body.get(_MESSAGES) or (),
        quantize=body.first(_QUANTIZE, _QUANTIZE.named("quantization")),
        stream=_streams(body),
    )


def decode_pull(request: WireRequest) -> inventory.PullModel:
    body = fields.body_of(request.body)
    return inventory.PullModel(source=_model(body), stream=_streams(body))


def decode_copy(request: WireRequest) -> inventory.CopyModel:
    body = fields.body_of(request.body)
    return inventory.CopyModel(
        source=body.need(fields.MODEL.named("source")), destination=body.need(fields.MODEL.named("destination"))
    )


def decode_delete(request: WireRequest) -> inventory.DeleteModel:
    return inventory.DeleteModel(model=_model(fields.body_of(request.body)))


def decode_find(request: WireRequest) -> inventory.FindBlob:
    return inventory.FindBlob(digest=digest_of(request.path.get("digest"), "digest"))


def decode_store(request: WireRequest) -> inventory.StoreBlob:
    return inventory.StoreBlob(digest=digest_of(request.path.get("digest"), "digest"))


def task_line(status: inventory.TaskStatus) -> dict[str, JSONValue]:
    members = {"digest": status.digest, "total": status.total, "completed": status.completed}
    return {"status": status.status, **{k: v for k, v in members.items() if v is not None}}


def encode_task(context: ReplyContext[inventory.PullModel | inventory.CreateModel, inventory.TaskStatus]) -> Reply:
    """Return the last status only."""
    return Reply(body=task_line(context.result))


def encode_done(context: ReplyContext[inventory.CopyModel | inventory.DeleteModel, inventory.Done]) -> Reply:
    return Reply(status=200 if context.result.found else 404)


def encode_found(context: ReplyContext[inventory.FindBlob, inventory.Done]) -> Reply:
    return Reply(status=200 if context.result.found else 404)


def encode_stored(context: ReplyContext[inventory.StoreBlob, inventory.Done]) -> Reply:
    """Return 201 for a new blob, 200 for one that exists."""
    return Reply(status=200 if context.result.found else 201)


class TaskStream(LineStream):
    """Writes one NDJSON line for each status; the line `success` is the last."""

    def __init__(self, context: ReplyContext[inventory.PullModel | inventory.CreateModel, None]) -> None:
        self._context = context

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        if not isinstance(event, inventory.TaskStatus) or self._ended:
            return ()
        self._ended = event.status == "success"
        return (Frame(data=self._line(event)),)

    def _line(self, status: inventory.TaskStatus) -> dict[str, JSONValue]:
        return task_line(status)


_STATUS_SCHEMA = schema.record(
    "status",
    status=schema.STRING,
    digest=schema.STRING,
    total=schema.COUNT,
    completed=schema.COUNT,
)

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/create",
        decode=decode_create,
        encode=encode_task,
        stream=TaskStream,
        access="admin",
        summary="Create a model from another one or from uploaded files",
        request_schema=fields.request_schema(
            fields.MODEL,
            _NAME,
            _FROM,
            _FILES,
            _ADAPTERS,
            _TEMPLATE,
            _SYSTEM,
            _LICENSE,
            _PARAMETERS,
            _MESSAGES,
            _QUANTIZE,
            _REQUIRES,
            fields.STREAM,
        ),
        response_schema=_STATUS_SCHEMA,
    ),
    Endpoint(
        method="POST",
        path="/api/pull",
        decode=decode_pull,
        encode=encode_task,
        stream=TaskStream,
        access="admin",
        summary="Download a model",
        request_schema=fields.request_schema(fields.MODEL, _NAME, fields.STREAM, fields.flag("insecure")),
        response_schema=_STATUS_SCHEMA,
    ),
    Endpoint(
        method="POST",
        path="/api/copy",
        decode=decode_copy,
        encode=encode_done,
        access="admin",
        summary="Copy a model",
        request_schema=fields.request_schema(
            fields.MODEL.named("source"), fields.MODEL.named("destination"), required="source destination"
        ),
    ),
    Endpoint(
        method="DELETE",
        path="/api/delete",
        decode=decode_delete,
        encode=encode_done,
        access="admin",
        summary="Remove a model",
        request_schema=fields.request_schema(fields.MODEL, _NAME),
    ),
    Endpoint(
        method="HEAD",
        path="/api/blobs/{digest}",
        decode=decode_find,
        encode=encode_found,
        access="admin",
        summary="Check whether a file is uploaded",
    ),
    Endpoint(
        method="POST",
        path="/api/blobs/{digest}",
        decode=decode_store,
        encode=encode_stored,
        access="admin",
        summary="Upload a file for create",
        raw=True,
    ),
)
