"""Tools that the server calls, with the official clients of the three APIs and a server of the official MCP SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.client_helpers import function, user
from tests.e2e.stack import Stack, eventually, serving
from tests.official_clients import anthropic, ollama, openai
from tests.tools.notes_server import notes_server

READ = 'call notes__read {"page": 7} then The note says: RESULT'
BETA = ["mcp-client-2025-11-20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def notes(folder: Path) -> Iterator[str]:
    with notes_server(folder) as address:
        yield address


@pytest.fixture(scope="module")
def stack(folder: Path, notes: str) -> Iterator[Stack]:
    home = folder / "home"
    home.mkdir()
    (home / "words.script.json").write_text(json.dumps({"constraints": True}))
    script = {"from": "./words.script.json", "limits": {"parallel": 8, "queue": 100}}
    models = {
        "script": {**script, "mcp": ["notes"]},
        "careful": {**script, "mcp": ["notes"], "approve": ["read"]},
        "bare": script,
        "tiny": {"from": "builtin:tiny", "mcp": ["notes"], "parameters": {"temperature": 0}},
    }
    servers = {"notes": {"url": notes, "timeout": "2s"}, "gone": {"url": "http://127.0.0.1:9/mcp", "timeout": "1s"}}
    with serving(home, models, mcp=servers) as found:
        yield found


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    return stack.url


@pytest.fixture(scope="module")
def gpt(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def llama(url: str) -> Iterator[ollama.Client]:
    client = ollama.Client(host=url, timeout=60)
    yield client
    client._client.close()


# Responses


def mcp(**more: Any) -> Any:
    return [{"type": "mcp", "server_label": "notes", "require_approval": "never", **more}]


def test_responses_list_and_call_the_tools_of_a_server(gpt: Any) -> None:
    response = gpt.responses.create(model="bare", input=READ, tools=mcp())
    listed, call, message = response.output
    assert (listed.type, [tool.name for tool in listed.tools]) == ("mcp_list_tools", ["fail", "hold", "read"])
    assert (call.type, call.server_label, call.name, json.loads(call.arguments)) == (
        "mcp_call", "notes", "read", {"page": 7},
    )  # fmt: skip
    assert (call.output, call.error, call.status) == ("page 7", None, "completed")
    assert response.output_text == "The note says: page 7"
    assert (response.status, message.type) == ("completed", "message")


def test_responses_stream_calls(gpt: Any) -> None:
    with gpt.responses.stream(model="bare", input=READ, tools=mcp()) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    wanted = [kind for kind in kinds if ".mcp_" in kind]
    assert wanted == [
        "response.mcp_list_tools.in_progress", "response.mcp_list_tools.completed", "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta", "response.mcp_call_arguments.done", "response.mcp_call.completed",
    ]  # fmt: skip
    assert final.output_text == "The note says: page 7"
    assert [item.type for item in final.output] == ["mcp_list_tools", "mcp_call", "message"]


def test_responses_show_the_calls_of_a_model_with_tools(gpt: Any) -> None:
    response = gpt.responses.create(model="script", input=READ)
    assert [item.type for item in response.output] == ["mcp_call", "message"]


def test_responses_ask_for_an_approval_and_continue_with_it(gpt: Any) -> None:
    asked = gpt.responses.create(model="careful", input=READ)
    [request] = asked.output
    assert (request.type, request.name) == ("mcp_approval_request", "read")
    answer = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
    response = gpt.responses.create(model="careful", previous_response_id=asked.id, input=[answer])
    call, message = response.output
    assert (call.type, call.approval_request_id, call.output) == ("mcp_call", request.id, "page 7")
    assert response.output_text == "The note says: page 7"
    further = gpt.responses.create(model="careful", previous_response_id=response.id, input="say bye")
    assert further.output_text == "bye"
    assert message.type == "message"


def test_responses_without_an_approval_make_no_call(gpt: Any) -> None:
    asked = gpt.responses.create(model="bare", input=READ, tools=[{"type": "mcp", "server_label": "notes"}])
    request = asked.output[-1]
    assert request.type == "mcp_approval_request"
    refused = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": False, "reason": "dear"}
    with gpt.responses.stream(model="bare", previous_response_id=asked.id, input=[refused], tools=mcp()) as stream:
        final = stream.get_final_response()
    assert final.output_text == "The note says: Error: A person refused this call. The reason: dear"
    later = gpt.responses.create(model="bare", previous_response_id=asked.id, input="say never mind")
    assert later.output_text == "never mind"


def test_a_call_may_be_demanded_of_a_model_whose_tools_the_manifest_declares(gpt: Any) -> None:
    question = user("Read page 3.")
    answer = gpt.chat.completions.create(model="tiny", messages=question, tool_choice="required", max_tokens=100)
    assert answer.choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match="there are no tools"):
        gpt.chat.completions.create(model="bare", messages=question, tool_choice="required")


def test_a_real_model_makes_a_call_that_the_request_demands(gpt: Any) -> None:
    chosen = {"type": "mcp", "server_label": "notes", "name": "read"}
    response = gpt.responses.create(model="tiny", input="Read page 3.", tools=mcp(), tool_choice=chosen)
    [call] = [item for item in response.output if item.type == "mcp_call"]
    assert (call.name, call.output) == ("read", f"page {json.loads(call.arguments)['page']}")
    assert response.usage.input_tokens_details.cached_tokens > 0  # the second turn continues the first one


def test_a_response_in_the_background_makes_calls_and_can_be_cancelled_in_one(gpt: Any, folder: Path) -> None:
    made = gpt.responses.create(model="script", input=READ, background=True)
    eventually(lambda: gpt.responses.retrieve(made.id).status == "completed")
    assert gpt.responses.retrieve(made.id).output_text == "The note says: page 7"
    (folder / "held").unlink(missing_ok=True)
    made = gpt.responses.create(model="script", input="call notes__hold {} then RESULT", background=True)
    eventually((folder / "held").exists)
    [call] = gpt.responses.cancel(made.id).output
    assert (call.type, call.status) == ("mcp_call", "incomplete")


def test_the_tools_of_a_model_and_of_a_request_count_as_input(gpt: Any) -> None:
    counts = [
        gpt.responses.input_tokens.count(input="hello", **more).input_tokens
        for more in ({"model": "bare"}, {"model": "script"}, {"model": "bare", "tools": mcp()})
    ]
    assert counts[0] < counts[1] == counts[2]


def test_responses_report_a_failed_call_and_a_call_that_hangs(gpt: Any) -> None:
    failed = gpt.responses.create(model="script", input="call notes__fail {} then RESULT")
    assert failed.output[0].status == "failed"
    assert "no such page" in failed.output[0].error.content[0]["text"]
    assert "no such page" in failed.output_text
    hangs = gpt.responses.create(model="script", input="call notes__hold {} then RESULT")
    assert hangs.output[0].status == "failed"
    assert "2 s" in hangs.output_text


def test_responses_answer_beside_a_server_that_is_down(gpt: Any) -> None:
    tools = [{"type": "mcp", "server_label": "gone", "require_approval": "never"}]
    response = gpt.responses.create(model="bare", input="say hello", tools=tools)
    assert response.output[0].type == "mcp_list_tools"
    assert response.output[0].error
    assert response.output_text == "hello"


def test_responses_mix_the_tools_of_the_client_and_of_the_server(gpt: Any) -> None:
    calls = [{"name": "notes__read", "arguments": {"page": 1}}, {"name": "weather", "arguments": {}}]
    text = "say " + "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls) + " then RESULT"
    own = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
    first = gpt.responses.create(model="script", input=text, tools=[own])
    assert sorted(item.type for item in first.output) == ["function_call", "mcp_call"]
    [mine] = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": mine.call_id, "output": "rain"}
    second = gpt.responses.create(model="script", previous_response_id=first.id, input=[result], tools=[own])
    assert second.output_text == "page 1 | rain"


# Messages


def servers(notes: str) -> Any:
    return [{"type": "url", "name": "notes", "url": notes}]


TOOLSET: Any = [{"type": "mcp_toolset", "mcp_server_name": "notes"}]


def test_messages_call_the_tools_of_a_server(claude: Any, notes: str) -> None:
    ask = {
        "model": "bare", "max_tokens": 200, "messages": user(READ), "mcp_servers": servers(notes), "betas": BETA,
        "tools": TOOLSET,
    }  # fmt: skip
    answer = claude.beta.messages.create(**ask)
    use, result, text = answer.content
    assert (use.type, use.server_name, use.name, use.input) == ("mcp_tool_use", "notes", "read", {"page": 7})
    assert (result.type, result.tool_use_id, result.is_error) == ("mcp_tool_result", use.id, False)
    assert result.content[0].text == "page 7"
    assert text.text == "The note says: page 7"
    assert answer.stop_reason == "end_turn"
    with claude.beta.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["mcp_tool_use", "mcp_tool_result", "text"]
    assert final.content[0].input == {"page": 7}
    history = [*user(READ), {"role": "assistant", "content": answer.content}, *user("say bye")]
    assert claude.beta.messages.create(**{**ask, "messages": history}).content[0].text == "bye"


def test_messages_hide_the_calls_of_a_model_with_tools(claude: Any) -> None:
    answer = claude.messages.create(model="script", max_tokens=200, messages=user(READ))
    assert [(block.type, block.text) for block in answer.content] == [("text", "The note says: page 7")]


# Chat completions


def test_chat_completions_hide_the_calls_of_a_model_with_tools(gpt: Any) -> None:
    whole = gpt.chat.completions.create(model="script", messages=user(READ))
    assert whole.choices[0].message.content == "The note says: page 7"
    assert whole.choices[0].message.tool_calls is None
    assert whole.choices[0].finish_reason == "stop"
    options = {"include_usage": True}
    chunks = list(gpt.chat.completions.create(model="script", messages=user(READ), stream=True, stream_options=options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "The note says: page 7"
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_chat_completions_give_the_client_its_own_calls(gpt: Any) -> None:
    answer = gpt.chat.completions.create(
        model="script", messages=user('call get_weather {"city": "Oslo"}'), tools=[function()]
    )
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, answer.choices[0].finish_reason) == ("get_weather", "tool_calls")


def test_chat_completions_refuse_what_the_tools_cannot_have(gpt: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="one answer at a time"):
        gpt.chat.completions.create(model="script", messages=user("hello"), n=2)
    with pytest.raises(openai.BadRequestError, match="notes__read"):
        gpt.chat.completions.create(model="script", messages=user("hello"), tools=[function("notes__read")])


# Ollama


def test_ollama_hides_the_calls_of_a_model_with_tools(llama: Any) -> None:
    whole = llama.chat(model="script", messages=user(READ))
    assert whole.message.content == "The note says: page 7"
    assert not whole.message.tool_calls
    parts = list(llama.chat(model="script", messages=user(READ), stream=True))
    assert "".join(part.message.content or "" for part in parts) == "The note says: page 7"
    assert parts[-1].done
    assert parts[-1].eval_count == whole.eval_count


# Servers that the manifest does not declare


def test_a_server_that_the_manifest_does_not_declare_is_refused_in_each_dialect(gpt: Any, claude: Any) -> None:
    other = "https://mcp.example.org/mcp"
    with pytest.raises(openai.BadRequestError, match="does not know"):
        gpt.responses.create(model="bare", input="hello", tools=mcp(server_url=other))
    with pytest.raises(openai.BadRequestError, match="manifest declares"):
        gpt.responses.create(model="bare", input="hello", tools=mcp(authorization="secret"))
    named = [{"type": "url", "name": "notes", "url": other}]
    with pytest.raises(anthropic.BadRequestError, match="does not know"):
        claude.beta.messages.create(model="bare", max_tokens=9, messages=user("hello"), mcp_servers=named, betas=BETA)


# Load, and clients that leave


def test_a_client_that_leaves_cancels_the_call_at_the_server(url: str, folder: Path) -> None:
    for name in ("held", "released"):
        (folder / name).unlink(missing_ok=True)
    body = {"model": "script", "input": "call notes__hold {} then RESULT", "stream": True}
    with httpx.Client(timeout=60) as client, client.stream("POST", f"{url}/v1/responses", json=body) as stream:
        for line in stream.iter_lines():
            if "mcp_call_arguments.done" in line:
                eventually((folder / "held").exists)
                break
    eventually((folder / "released").exists)


def test_fifty_requests_with_calls_at_once(url: str) -> None:
    def ask(page: int) -> str:
        text = f'call notes__read {{"page": {page}}} then RESULT'
        body = {"model": "script", "messages": user(text), "stream": bool(page % 2)}
        reply = httpx.post(f"{url}/api/chat", json=body, timeout=120)
        return "".join(json.loads(line)["message"]["content"] for line in reply.text.splitlines())

    with ThreadPoolExecutor(50) as clients:
        assert list(clients.map(ask, range(50))) == [f"page {page}" for page in range(50)]
    metrics = httpx.get(f"{url}/metrics", timeout=30).text
    assert 'mullama_tool_calls_total{result="ok",server="notes",tool="read"}' in metrics


def test_a_model_of_a_peer_gets_the_servers_that_the_request_names(stack: Stack, notes: str, tmp_path: Path) -> None:
    blocks = {
        "mcp": {"notes": {"url": notes}},
        "peers": {"back": {"url": stack.url}},
        "routes": {"far": {"to": ["bare@back"]}, "furnished": {"to": ["script@back"]}},
    }
    with (
        serving(tmp_path, {"demo": {"from": "builtin:tiny"}}, **blocks) as front,
        openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0, timeout=60) as gpt,
    ):
        for stream in (False, True):
            made: Any = gpt.responses.create(model="far", input=READ, tools=mcp(), stream=stream)
            response = list(made)[-1].response if stream else made
            assert [item.type for item in response.output] == ["mcp_list_tools", "mcp_call", "message"]
            assert response.output[-1].content[0].text == "The note says: page 7"
        answer = gpt.chat.completions.create(model="furnished", messages=user(READ))
        assert answer.choices[0].message.content == "The note says: page 7"
