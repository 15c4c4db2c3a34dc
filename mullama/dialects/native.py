"""mullama's own endpoints for models, `/api/models…`: list, pull, create, load, copy and delete.

They decode to the operations of the other dialects, exist for any `server.dialects` of the manifest, and reach every
model. `operator_errors` has the form of their errors.
"""

from __future__ import annotations

from mullama.chat import inventory
from mullama.dialects import fields, native_inference, schema
from mullama.dialects.base import Dialect, Endpoint, Reply, ReplyContext, StaticReply, WireRequest, fixed
from mullama.dialects.ollama import model_admin
from mullama.dialects.operator_errors import ERROR_SCHEMA, error_reply, error_tree
from mullama.errors import Invalid, MullamaError, NotFound, Unsupported
from mullama.names import JSONValue

_NAME = fields.MODEL.named("name")
_ALIAS = fields.MODEL.named("alias")
_FROM = fields.text("from", 2048)
_MODEL = fields.record("model")
_KEEP = fields.number("keep_alive", -1, 10**9)
_FORCE = fields.flag("force")

# The fields by which a body names a model.
_NAMES = ("name", "model", "alias")

# Properties of a model's declaration, which a load cannot change.
_DECLARED = ("gpu_layers", "context_size", "mmproj")

# Models for a first try, by the short names of the alias table: name, description, tags.
SUGGESTED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("llama3.2:1b", "small general chat", ("chat", "small", "tools")),
    ("llama3.2:3b", "general chat", ("chat", "tools")),
    ("qwen2.5:7b", "general chat in many languages, with tools", ("chat", "tools")),
    ("deepseek-r1:7b", "thinks before it answers", ("chat", "thinking")),
    ("mistral:7b", "general chat", ("chat",)),
    ("phi3:mini", "small general chat", ("chat", "small")),
    ("gemma2:9b", "general chat", ("chat",)),
    ("nomic-embed", "text embeddings", ("embedding",)),
)


def _body(request: WireRequest, *known: str) -> fields.Body:
    """Return the body, or raise `Invalid` for a field that has no effect."""
    body = fields.body_of({} if request.body is None else request.body)
    for name in body.names():
        if name not in known:
            raise Invalid(f"unknown field '{name[:64]}'", field=name[:64], hint=f"known: {', '.join(known) or 'none'}")
    return body


def _model_name(body: fields.Body) -> str:
    name = body.first(_NAME, fields.MODEL, _ALIAS)
    if not name:
        raise Invalid("name is required", field="name")
    return name


def _path_name(request: WireRequest) -> str:
    return request.path.get("name", "")


def entry(card: inventory.ModelCard) -> dict[str, JSONValue]:
    """Return a model as an entry of a list: sizes in bytes, times in Unix seconds, null `expires` for never."""
    stays = card.expires is None or card.expires == float("inf")
    return {
        "name": card.name,
        "source": card.source,
        "digest": card.digest,
        "size": card.size,
        "modified": card.modified,
        "family": card.family,
        "parameters": card.parameter_count,
        "parameter_size": card.parameter_size,
        "quantization": card.quantization,
        "description": card.description,
        "capabilities": list(card.capabilities),
        "context_size": card.context_size,
        "gpu_layers": card.gpu_layers,
        "loaded": card.loaded,
        "state": card.state,
        "memory": card.memory,
        "memory_gpu": card.memory_gpu,
        "active_requests": card.active,
        "expires": None if stays else card.expires,
        "is_default": card.is_default,
        "route_of": card.route_of or None,
        "parent": card.parent or None,
        "stored": card.stored,
        "repository": card.resolved or None,
        "paths": list(card.paths),
    }


def _details(card: inventory.ModelCard) -> dict[str, JSONValue]:
    """Return all known properties of a model."""
    return {
        **entry(card),
        "train_context": card.train_context,
        "embedding_length": card.embedding_length,
        "vocab_size": card.vocabulary,
        "license": card.license,
        "system": card.system,
        "template": card.template,
        "template_source": card.template_source,
        "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in card.parameters},
        "messages": [{"role": m.role, "content": m.text} for m in card.messages],
        "modelfile": card.modelfile,
        "aliases": list(card.aliases),
        "metadata": {k: _finite(v) for k, v in card.metadata.items()},
    }


def _finite(value: JSONValue) -> JSONValue:
    """Return a value with null for each number that is not finite; GGUF metadata may hold such numbers."""
    if isinstance(value, float) and value - value != 0:
        return None
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def encode_list(context: ReplyContext[inventory.ListModels, inventory.Inventory]) -> Reply:
    return Reply(body={"models": [entry(card) for card in context.result.models]})


def decode_show(request: WireRequest) -> inventory.ShowModel:
    verbose = request.query.get("verbose") in ("1", "true")
    return inventory.ShowModel(model=_path_name(request), verbose=verbose, headers=verbose)


def encode_show(context: ReplyContext[inventory.ShowModel, inventory.ModelCard]) -> Reply:
    return Reply(body=_details(context.result))


def decode_delete(request: WireRequest) -> inventory.DeleteModel:
    return inventory.DeleteModel(model=_path_name(request), only_check=request.query.get("check") in ("1", "true"))


def encode_delete(context: ReplyContext[inventory.DeleteModel, inventory.Done]) -> Reply:
    return Reply(
        body={"status": "checked" if context.operation.only_check else "deleted", "name": context.operation.model}
    )


def decode_pull(request: WireRequest) -> inventory.PullModel:
    """Decode a pull: `name` alone is the source; with `from` it is the name of the new model."""
    body = _body(request, *_NAMES, "from", "force", "stream")
    name, source = _model_name(body), body.get(_FROM)
    return inventory.PullModel(
        source=source or name,
        name=name if source else None,
        again=body.get(_FORCE) or False,
        stream=body.get(fields.STREAM) or False,
    )


def decode_create(request: WireRequest) -> inventory.CreateModel:
    """Decode a model with the fields of the manifest; `from` may name a local model.

    A value `blob:DIGEST` is a file that was uploaded to `/api/models/blobs/DIGEST`.
    """
    body = _body(request, "from", "model", "stream")
    model = dict(body.get(_MODEL) or {})
    base = body.get(_FROM) or model.pop("from", None)
    if not isinstance(base, str) or not base:
        raise Invalid("from is required", field="from")
    return inventory.CreateModel(
        name=_path_name(request), base=base, declared={**model, "from": base}, stream=body.get(fields.STREAM) or False
    )


def decode_copy(request: WireRequest) -> inventory.CopyModel:
    _body(request, "source", "destination")
    return model_admin.decode_copy(request)


def encode_copy(context: ReplyContext[inventory.CopyModel, inventory.Done]) -> Reply:
    return Reply(body={"status": "copied", "source": context.operation.source, "name": context.operation.destination})


def decode_load(request: WireRequest) -> inventory.LoadModel:
    """Decode the load of a local model as it is declared; without a name, of the default model."""
    body = _body(request, *_NAMES, "keep_alive", *_DECLARED)
    for name in _DECLARED:
        if body.has(name):
            raise Unsupported(
                f"{name} is declared with the model, not given when it is loaded", field=name,
                hint="change it in the manifest, or create a model with it",
            )  # fmt: skip
    return inventory.LoadModel(model=body.first(_NAME, fields.MODEL, _ALIAS) or "", keep_alive=body.get(_KEEP))


def decode_unload(request: WireRequest) -> inventory.LoadModel:
    """Decode an unload: after the model's requests end, or at once with `force`, which ends them."""
    return inventory.LoadModel(
        model=_path_name(request), keep_alive=0.0, forced=_body(request, "force").get(_FORCE) or False
    )


def encode_load(context: ReplyContext[inventory.LoadModel, inventory.Loaded]) -> Reply:
    return Reply(body={"status": "unloading" if context.result.unloaded else "loaded", "name": context.operation.model})


def decode_default(request: WireRequest) -> inventory.SetDefault:
    return inventory.SetDefault(model=_model_name(_body(request, *_NAMES)))


def encode_default(context: ReplyContext[inventory.SetDefault, inventory.Done]) -> Reply:
    return Reply(body={"status": "default", "name": context.operation.model})


_SUGGESTIONS = StaticReply(
    reply=Reply(
        body={
            "models": [
                {"name": name, "description": text, "from": name, "tags": list(tags)} for name, text, tags in SUGGESTED
            ]
        }
    )
)


def decode_use(request: WireRequest) -> inventory.PullModel:
    """Decode the pull of a suggested model under its own name."""
    name = _path_name(request)
    if name not in {suggested for suggested, _, _ in SUGGESTED}:
        raise NotFound(f"{name!r} is not among the suggested models", name=name, hint="GET /api/defaults lists them")
    return inventory.PullModel(source=name, stream=_body(request, "stream").get(fields.STREAM) or False)


def task_line(status: inventory.TaskStatus) -> dict[str, JSONValue]:
    """Return one line of a task's progress, with bytes where there are any."""
    more: dict[str, JSONValue] = {
        "file": status.file,
        "phase": status.phase,
        "resumed": status.resumed,
        "message": status.message,
    }
    return {**model_admin.task_line(status), **{name: value for name, value in more.items() if value}}


def encode_task(context: ReplyContext[inventory.PullModel | inventory.CreateModel, inventory.TaskStatus]) -> Reply:
    """Return the last status alone."""
    return Reply(body=task_line(context.result))


class NativeTaskStream(model_admin.TaskStream):
    """Writes a line of JSON for each status; the last is `success` or an error with its kind and hint."""

    def _line(self, status: inventory.TaskStatus) -> dict[str, JSONValue]:
        return task_line(status)

    def _error(self, error: MullamaError) -> JSONValue:
        return error_tree(error, f"req_{self._context.id}")


_ENTRY = schema.record("name size loaded", name=schema.STRING, size=schema.COUNT, loaded=schema.BOOLEAN)
_TASK = schema.record("status", status=schema.STRING, total=schema.COUNT, completed=schema.COUNT)
_ANSWER = schema.record("status", status=schema.STRING, name=schema.STRING)
_NAMED = fields.request_schema(_NAME, fields.MODEL, _ALIAS)

MANAGEMENT = Dialect(
    name="mullama",
    endpoints=(
        *native_inference.ENDPOINTS,
        Endpoint(
            method="GET", path="/api/models", decode=fixed(inventory.ListModels()), encode=encode_list,
            summary="List all models", response_schema=schema.exact(models=schema.listed(_ENTRY)),
        ),
        Endpoint(
            method="POST", path="/api/models/pull", decode=decode_pull, encode=encode_task, stream=NativeTaskStream,
            access="admin", summary="Download a model", response_schema=_TASK,
            request_schema=fields.request_schema(_NAME, fields.MODEL, _ALIAS, _FROM, _FORCE, fields.STREAM),
        ),
        Endpoint(
            method="POST", path="/api/models/load", decode=decode_load, encode=encode_load, access="admin",
            summary="Load a model", response_schema=_ANSWER,
            request_schema=fields.request_schema(
                _NAME, fields.MODEL, _ALIAS, _KEEP,
                fields.integer("gpu_layers"), fields.integer("context_size"), fields.text("mmproj"),
            ),
        ),
        Endpoint(
            method="POST", path="/api/models/copy", decode=decode_copy, encode=encode_copy, access="admin",
            summary="Copy a model", response_schema=_ANSWER,
            request_schema=fields.request_schema(
                fields.MODEL.named("source"), fields.MODEL.named("destination"), required="source destination"
            ),
        ),
        Endpoint(
            method="POST", path="/api/models/default", decode=decode_default, encode=encode_default, access="admin",
            summary="Set the default model", response_schema=_ANSWER,
            request_schema=_NAMED,
        ),
        Endpoint(
            method="POST", path="/api/models/{name:path}/unload", decode=decode_unload, encode=encode_load,
            access="admin", summary="Unload a model after its requests, or with `force` at once",
            request_schema=fields.request_schema(_FORCE), response_schema=_ANSWER,
        ),
        Endpoint(
            method="GET", path="/api/models/{name:path}", decode=decode_show, encode=encode_show,
            summary="Show a model", response_schema=_ENTRY,
        ),
        Endpoint(
            method="PUT", path="/api/models/{name:path}", decode=decode_create, encode=encode_task,
            stream=NativeTaskStream, access="admin", summary="Create a model with the manifest's fields",
            request_schema=fields.request_schema(_FROM, _MODEL, fields.STREAM), response_schema=_TASK,
        ),
        Endpoint(
            method="DELETE", path="/api/models/{name:path}", decode=decode_delete, encode=encode_delete,
            access="admin", summary="Remove a model", response_schema=_ANSWER,
        ),
        Endpoint(
            method="GET", path="/api/defaults", decode=fixed(_SUGGESTIONS),
            summary="List suggested models", response_schema=schema.exact(models=schema.listed(schema.RECORD)),
        ),
        Endpoint(
            method="POST", path="/api/defaults/{name:path}/use", decode=decode_use, encode=encode_task,
            stream=NativeTaskStream, access="admin", summary="Pull a suggested model",
            request_schema=fields.request_schema(fields.STREAM), response_schema=_TASK,
        ),
    ),
    error=error_reply,
    error_schema=ERROR_SCHEMA,
    prefixes=("/api/models", "/api/defaults"),
)  # fmt: skip
