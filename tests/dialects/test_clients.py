"""The official packages read what the dialects write, through a transport that has no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import httpx
import httpx2
import pytest
from pydantic import BaseModel

from mullama.chat.answer import fold
from mullama.chat.inventory import (
    CopyModel,
    DeleteModel,
    Done,
    Inventory,
    ListModels,
    ListRunning,
    Loaded,
    LoadModel,
    ModelCard,
    PullModel,
    ShowModel,
    TaskStatus,
)
from mullama.chat.types import (
    CountRequest,
    EmbedRequest,
    Finished,
    StopReason,
    TextDelta,
    ThinkingDelta,
    TokenCount,
    ToolCall,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
    Vectors,
)
from mullama.dialects.base import (
    Reply,
    ResponseRequest,
    StaticReply,
    WireRequest,
    is_streamed,
)
from mullama.dialects.stored_objects import FetchStored, StoredObject
from mullama.errors import Busy, ContextOverflow, EngineFailed, MullamaError, NotFound
from mullama.server.http.strict_json import to_json
from mullama.server.streams import to_bytes
from mullama.struct import replace
from tests.dialects.wire import CALL, CALL_EVENTS, CALLED, CONTEXT, WEATHER, encode, route, run_of, stream
from tests.official_clients import anthropic, ollama, openai

pytestmark = pytest.mark.timeout(60)  # the first tests import the libraries

CARD = ModelCard(
    name="tiny",
    digest="sha256:" + "ab" * 32,
    size=7,
    modified=1.0,
    family="llama",
    capabilities=("completion", "tools"),
    metadata={"llama.context_length": 512},
)
HELLO: Any = [{"role": "user", "content": "Hello"}]
TALK = run_of(ThinkingDelta(text="hm"), TextDelta(text="Hel"), TextDelta(text="lo."))
SECOND = ToolCall(id="call_2b", name="clock", arguments={})
CALLS = run_of(
    TextDelta(text="Let me look."),
    *CALL_EVENTS,
    ToolCallStarted(index=1, id=SECOND.id, name=SECOND.name),
    ToolCallFinished(index=1, call=SECOND),
    end=CALLED,
)


class Model:
    """Answers requests as a server would: decode, a script, encode, bytes. `kit` is httpx or its successor."""

    def __init__(self, kit: Any, script: Sequence[Any]) -> None:
        self.kit = kit
        self.script = script
        self.stored: dict[str, StoredObject] = {}
        self.contexts = (replace(CONTEXT, id=f"{i:024x}") for i in count(1))
        self.seen: list[Any] = []

    def client(self) -> Any:
        return self.kit.Client(transport=self.kit.MockTransport(self))

    def __call__(self, request: Any) -> Any:
        headers = {k.lower(): v for k, v in request.headers.items()}
        found = route(request.method, request.url.path, headers)
        assert found is not None, request.url
        dialect, endpoint, params = found
        body = json.loads(request.content) if request.content else None
        wire = WireRequest(body=body, path=params, query=dict(request.url.params), headers=headers)
        try:
            return self._answer(endpoint, endpoint.decode(wire))
        except MullamaError as error:
            return self._whole(dialect.error(error, "req_1"))

    def _answer(self, endpoint: Any, operation: Any) -> Any:
        if isinstance(operation, ResponseRequest) and operation.needs:
            operation = endpoint.resume(operation, {i: self.stored[i] for i in operation.needs})
        self.seen.append(operation)
        context = next(self.contexts)
        if isinstance(self.script[0], MullamaError):
            raise self.script[0]
        if is_streamed(operation):
            encoder = stream(endpoint, operation, context)
            frames = [f for e in self._events(operation) for f in feed(encoder, e)]
            self._remember(endpoint, operation, frames[-1].data)
            content = to_bytes([*encoder.ping(), *frames], encoder.media)
            return self.kit.Response(200, content=content, headers={"content-type": encoder.media})
        reply = encode(endpoint, operation, self._result(operation), context)
        self._remember(endpoint, operation, reply.body)
        return self._whole(reply)

    def _whole(self, reply: Reply) -> Any:
        kind = {} if "content-type" in reply.headers else {"content-type": "application/json"}
        body = b"" if reply.body is None else to_json(reply.body)
        return self.kit.Response(reply.status, content=body, headers={**kind, **reply.headers})

    def _remember(self, endpoint: Any, operation: Any, body: Any) -> None:
        kept = endpoint.remember(operation, body) if endpoint.remember else None
        if kept:
            self.stored[kept.id] = kept

    def _events(self, operation: Any) -> Sequence[Any]:
        if isinstance(operation, PullModel):
            return [TaskStatus(status="pulling manifest"), TaskStatus(status="success")]
        return self.script

    def _result(self, operation: Any) -> Any:
        match operation:
            case ListModels() | ListRunning():
                return Inventory(models=(CARD,))
            case ShowModel():
                return CARD
            case LoadModel():
                return Loaded(model=operation.model)
            case EmbedRequest():
                return Vectors(vectors=((0.5, -2.0),) * len(operation.inputs), usage=Usage(prompt_tokens=3))
            case CountRequest():
                return TokenCount(tokens=42)
            case FetchStored(id=id):
                return self.stored[id]
            case DeleteModel() | CopyModel():
                return Done()
            case StaticReply():
                return None
            case _:
                return fold(self.script)


def feed(encoder: Any, event: Any) -> Any:
    return encoder.fail(event) if isinstance(event, MullamaError) else encoder.feed(event)


def openai_client(script: Sequence[Any] = TALK) -> openai.OpenAI:
    http = Model(httpx2, script).client()
    return openai.OpenAI(base_url="http://x/v1", api_key="k", max_retries=0, http_client=http)


def anthropic_client(script: Sequence[Any] = TALK) -> anthropic.Anthropic:
    http = Model(httpx2, script).client()
    return anthropic.Anthropic(base_url="http://x", api_key="k", max_retries=0, http_client=http)


def ollama_client(script: Sequence[Any] = TALK) -> ollama.Client:
    return ollama.Client(host="http://x", transport=httpx.MockTransport(Model(httpx, script)))


def broken(error: MullamaError) -> tuple[Any, ...]:
    """A stream that fails after its first text."""
    return (*TALK[:3], error)


# OpenAI.


def test_openai_chat_whole() -> None:
    answer = openai_client().chat.completions.create(model="tiny", messages=HELLO)

    assert answer.choices[0].message.content == "Hello."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 18


def test_openai_chat_streamed_with_its_own_accumulator() -> None:
    with openai_client(CALLS).chat.completions.stream(
        model="tiny",
        messages=HELLO,
        tools=[{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}],
        stream_options={"include_usage": True},
    ) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()

    message = final.choices[0].message
    assert message.content == "Let me look."
    assert message.tool_calls is not None
    assert [c.function.name for c in message.tool_calls] == ["weather", "clock"]
    assert json.loads(message.tool_calls[0].function.arguments) == CALL.arguments
    assert final.usage is not None
    assert "tool_calls.function.arguments.delta" in events


class Forecast(BaseModel):
    city: str


def test_openai_parse_reads_an_object_and_raises_on_a_cut_one() -> None:
    whole = openai_client(run_of(TextDelta(text='{"city":"Ulm"}')))
    answer = whole.chat.completions.parse(model="tiny", messages=HELLO, response_format=Forecast)
    assert answer.choices[0].message.parsed == Forecast(city="Ulm")

    cut = openai_client(run_of(TextDelta(text='{"ci'), end=Finished(reason=StopReason.LENGTH)))
    with pytest.raises(openai.LengthFinishReasonError):
        cut.chat.completions.parse(model="tiny", messages=HELLO, response_format=Forecast)


def test_openai_completions_embeddings_and_models() -> None:
    client = openai_client()

    assert client.completions.create(model="tiny", prompt="x").choices[0].text == "Hello."
    chunks = list(client.completions.create(model="tiny", prompt="x", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello."
    assert client.embeddings.create(model="tiny", input=["a", "b"]).data[1].embedding == [0.5, -2.0]
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("org/tiny:Q8_0").id == "org/tiny:Q8_0"


def test_openai_responses_whole_and_taken_up_again() -> None:
    model = Model(httpx2, TALK)
    client = openai.OpenAI(base_url="http://x/v1", api_key="k", http_client=model.client())

    first = client.responses.create(model="tiny", input="Hello")
    assert first.output_text == "Hello."
    client.responses.create(model="tiny", input="And?", previous_response_id=first.id)
    assert [m.text for m in model.seen[-1].messages] == ["Hello", "Hello.", "And?"]
    assert client.responses.retrieve(first.id).output_text == "Hello."


def test_openai_responses_streamed_with_its_own_accumulator() -> None:
    tools: Any = [{"type": "function", "name": n, "parameters": {"type": "object"}} for n in ("weather", "clock")]
    with openai_client(CALLS).responses.stream(model="tiny", input="Hello", tools=tools) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()

    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    calls = [item for item in final.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [CALL.arguments, {}]
    assert final.output_text == "Let me look."


def test_openai_responses_parse_reads_an_object() -> None:
    client = openai_client(run_of(TextDelta(text='{"city":"Ulm"}')))

    assert client.responses.parse(model="tiny", input="x", text_format=Forecast).output_parsed == Forecast(city="Ulm")


OPENAI_STREAMS: list[Callable[[Any], Any]] = [
    lambda c: list(c.chat.completions.create(model="tiny", messages=HELLO, stream=True)),
    lambda c: list(c.completions.create(model="tiny", prompt="x", stream=True)),
    lambda c: list(c.responses.create(model="tiny", input="x", stream=True)),
]


@pytest.mark.parametrize("call", OPENAI_STREAMS)
def test_openai_raises_when_a_stream_fails(call: Callable[[openai.OpenAI], Any]) -> None:
    with pytest.raises(openai.APIError, match="the worker died"):
        call(openai_client(broken(EngineFailed("the worker died"))))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotFound("no", name="tiny"), "NotFoundError"),
        (ContextOverflow(9, 5), "BadRequestError"),
        (Busy("full", limited=True), "RateLimitError"),
        (EngineFailed("died"), "InternalServerError"),
    ],
)
def test_openai_raises_its_own_errors(error: MullamaError, kind: str) -> None:
    with pytest.raises(getattr(openai, kind)) as caught:
        openai_client([error]).chat.completions.create(model="tiny", messages=HELLO)

    assert caught.value.request_id == "req_1"
    if isinstance(error, ContextOverflow):
        assert caught.value.code == "context_length_exceeded"


# Anthropic.


def test_anthropic_messages_whole() -> None:
    answer = anthropic_client().messages.create(model="tiny", max_tokens=9, messages=HELLO)

    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == ("end_turn", 8, 4)


def test_anthropic_messages_streamed_with_its_own_accumulator() -> None:
    tools: Any = [{"name": "weather", "input_schema": WEATHER}, {"name": "clock", "input_schema": {"type": "object"}}]
    with anthropic_client(CALLS).messages.stream(model="tiny", max_tokens=9, messages=HELLO, tools=tools) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text == "Let me look."
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [CALL.arguments, {}]
    assert (final.stop_reason, final.usage.output_tokens) == ("tool_use", 6)


def test_anthropic_thinking_streams_with_its_signature() -> None:
    with anthropic_client().messages.stream(model="tiny", max_tokens=9, messages=HELLO) as stream:
        final = stream.get_final_message()

    thought = final.content[0]
    assert thought.type == "thinking"
    assert (thought.thinking, bool(thought.signature)) == ("hm", True)


def test_anthropic_counts_and_lists() -> None:
    client = anthropic_client()

    assert client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens == 42
    models = client.models.list()
    assert [model.id for model in models] == ["tiny"]
    assert models.data[0].created_at.year == 1970
    assert client.models.retrieve("tiny").max_input_tokens == 0


def test_anthropic_raises_when_a_stream_fails() -> None:
    client = anthropic_client(broken(EngineFailed("the worker died")))

    with (
        pytest.raises(anthropic.APIStatusError, match="the worker died"),
        client.messages.stream(model="tiny", max_tokens=9, messages=HELLO) as stream,
    ):
        stream.get_final_message()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotFound("no", name="tiny"), "NotFoundError"),
        (ContextOverflow(9, 5), "BadRequestError"),
        (Busy("full", limited=True), "RateLimitError"),
        (Busy("full"), "InternalServerError"),
    ],
)
def test_anthropic_raises_its_own_errors(error: MullamaError, kind: str) -> None:
    with pytest.raises(getattr(anthropic, kind)) as caught:
        anthropic_client([error]).messages.create(model="tiny", max_tokens=9, messages=HELLO)

    assert caught.value.request_id == "req_1"


# Ollama.


def test_ollama_chat_whole_and_streamed() -> None:
    client = ollama_client()

    answer = client.chat("tiny", HELLO, think=True)
    assert (answer.message.content, answer.message.thinking, answer.done_reason) == ("Hello.", "hm", "stop")
    parts = list(client.chat("tiny", HELLO, stream=True))
    assert "".join(part.message.content or "" for part in parts) == "Hello."
    assert (parts[-1].done, parts[-1].eval_count, parts[-1].prompt_eval_count) == (True, 6, 12)


def test_ollama_calls_have_arguments_as_objects() -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    parts = list(ollama_client(CALLS).chat("tiny", HELLO, tools=tools, stream=True))

    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [(c.function.name, c.function.arguments) for c in calls] == [("weather", CALL.arguments), ("clock", {})]


def test_ollama_generate_embed_and_inventory() -> None:
    client = ollama_client()

    assert client.generate("tiny", "x").response == "Hello."
    assert "".join(part.response for part in client.generate("tiny", "x", stream=True)) == "Hello."
    assert client.generate("tiny").done_reason == "load"
    assert client.embed("tiny", ["a", "b"]).embeddings[1] == [0.5, -2.0]
    assert client.embeddings("tiny", "a").embedding == [0.5, -2.0]
    assert client.list().models[0].model == "tiny"
    running = client.ps().models[0]
    assert running.expires_at is not None
    assert running.expires_at.year > 2300
    assert client.show("tiny").modelinfo == {
        "general.architecture": "llama",
        "general.parameter_count": 0,
        "llama.context_length": 512,
        "llama.embedding_length": 0,
    }
    assert [status.status for status in client.pull("tiny", stream=True)] == ["pulling manifest", "success"]
    assert client.delete("tiny").status == "success"
    assert client.copy("tiny", "other").status == "success"


def test_ollama_raises_its_own_errors_before_and_within() -> None:
    with pytest.raises(ollama.ResponseError, match="model 'tiny' not found") as caught:
        ollama_client([NotFound("no", name="tiny")]).chat("tiny", HELLO)
    assert caught.value.status_code == 404

    with pytest.raises(ollama.ResponseError, match="the worker died"):
        list(ollama_client(broken(EngineFailed("the worker died"))).chat("tiny", HELLO, stream=True))
