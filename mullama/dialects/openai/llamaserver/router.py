"""The endpoints of llama-server's router mode: the list of models, and their load, unload, removal and states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mullama.chat.inventory import DeleteModel, Done, ListModels, Loaded, LoadModel, ModelStateReport, WatchModels
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Frame, Reply, ReplyContext, StreamEvent, WireRequest, fixed
from mullama.dialects.openai import models
from mullama.dialects.openai.streams import EventStream
from mullama.errors import Invalid
from mullama.names import JSONValue


def _needed(name: str | None) -> str:
    """Return the name of the model, which these endpoints require."""
    if not name:
        raise Invalid("model must be a non-empty string", field="model")
    return name


def decode_load(request: WireRequest) -> LoadModel:
    body = fields.body_of(request.body)
    return LoadModel(model=_needed(body.get(fields.MODEL)), only_change=True)


def decode_unload(request: WireRequest) -> LoadModel:
    body = fields.body_of(request.body)
    return LoadModel(model=_needed(body.get(fields.MODEL)), keep_alive=0.0, only_change=True)


def decode_delete(request: WireRequest) -> DeleteModel:
    return DeleteModel(model=_needed(request.query.get("model")))


def encode_success(context: ReplyContext[LoadModel | DeleteModel, Loaded | Done]) -> Reply:
    return Reply(body={"success": True})


class ModelStream(EventStream):
    """Writes the state of each model, then every change of it."""

    def __init__(self, context: ReplyContext[WatchModels, Any]) -> None:
        pass

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        if not isinstance(event, ModelStateReport):
            return ()
        if not event.state:
            return (Frame(data={"model": event.model, "event": "model_remove", "data": {}}),)
        data: JSONValue = {"status": models.status_of(event.state)}
        return (Frame(data={"model": event.model, "event": "model_status", "data": data}),)


_SUCCESS = schema.exact(success=schema.BOOLEAN)
_NAMED = fields.request_schema(fields.MODEL, required="model")

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/models",
        decode=fixed(ListModels()),
        encode=models.encode_models,
        summary="List the models with their routes as aliases",
        response_schema=models.LIST_SCHEMA,
    ),
    Endpoint(
        method="DELETE",
        path="/models",
        decode=decode_delete,
        encode=encode_success,
        access="admin",
        summary="Remove a model (`?model=`)",
        response_schema=_SUCCESS,
    ),
    Endpoint(
        method="POST",
        path="/models/load",
        decode=decode_load,
        encode=encode_success,
        access="admin",
        summary="Load a model that is not loaded",
        request_schema=_NAMED,
        response_schema=_SUCCESS,
    ),
    Endpoint(
        method="POST",
        path="/models/unload",
        decode=decode_unload,
        encode=encode_success,
        access="admin",
        summary="Unload a loaded model after its requests",
        request_schema=_NAMED,
        response_schema=_SUCCESS,
    ),
    Endpoint(
        method="GET",
        path="/models/sse",
        decode=fixed(WatchModels()),
        stream=ModelStream,
        summary="Follow the states of the models",
    ),
)
