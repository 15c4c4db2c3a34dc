"""Images and sounds through every dialect, by the official packages and in the shapes that clients send.

The scripted model answers with its question, in which each medium is a text of its kind and digest.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mullama.chat.media.wav import wav_file
from tests.chat.media.test_formats import PNG, WAV
from tests.e2e.stack import Stack, stack_in
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors
from tests.official_clients import anthropic, ollama, openai

pytestmark = pytest.mark.timeout(120)

P64, W64 = base64.b64encode(PNG).decode(), base64.b64encode(WAV).decode()
URI = f"data:image/png;base64,{P64}"
SEEN = f"[image {hashlib.sha256(PNG).hexdigest()[:8]}]"
HEARD = f"[audio {hashlib.sha256(WAV).hexdigest()[:8]}]"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("media")) as made:
        (made.home / "eyes.script.json").write_text(json.dumps({"name": "eyes", "media": ["image", "audio"]}))
        (made.home / "blind.script.json").write_text(json.dumps({"name": "blind"}))
        (made.home / "a.png").write_bytes(PNG)
        (made.home / "b.wav").write_bytes(WAV)
        models: Any = {
            "eyes": {"from": "./eyes.script.json", "requires": ["vision", "audio"]},
            "blind": {"from": "./blind.script.json"},
            "closed": {"from": "./eyes.script.json", "mmproj": "none"},
        }
        limits = {"media": {"count": 3, "pixels": 400_000}}
        made.write(models, server={"listen": ["127.0.0.1:0"], "limits": limits})
        made.apply()
        yield made


def post(stack: Stack, path: str, body: Any, status: int = 200) -> Any:
    answer = httpx.post(f"{stack.url}{path}", json=body, timeout=30)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_ollama_sends_images_and_sounds(stack: Stack) -> None:
    with ollama.Client(host=stack.url) as client:
        for image in (PNG, P64, URI):
            ask = [{"role": "user", "content": "What?", "images": [image]}]
            if image is URI:  # the package takes no data URI
                told = post(stack, "/api/chat", {"model": "eyes", "messages": ask, "stream": False})["message"][
                    "content"
                ]
            else:
                told = client.chat("eyes", ask).message.content
            assert told == f"{SEEN}What?"
        heard = client.chat("eyes", [{"role": "user", "content": "What?", "images": [WAV, PNG]}], stream=True)
        assert "".join(part.message.content or "" for part in heard) == f"{HEARD}{SEEN}What?"
        assert client.generate("eyes", "What?", images=[PNG]).response == f"{SEEN}What?"
        assert {"vision", "audio"} <= set(client.show("eyes").capabilities or ())
        assert not {"vision", "audio"} & set(client.show("closed").capabilities or ())
        with pytest.raises(ollama.ResponseError, match='"blind" does not support vision') as caught:
            client.chat("blind", [{"role": "user", "content": "What?", "images": [PNG]}])
        assert caught.value.status_code == 400


def test_openai_sends_images_sounds_and_files(stack: Stack) -> None:
    parts: Any = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": W64, "format": "wav"}},
        {"type": "text", "text": "Done?"},
    ]
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0) as client:
        answer = client.chat.completions.create(model="eyes", messages=[{"role": "user", "content": parts}])
        assert answer.choices[0].message.content == f"Look:{SEEN}{HEARD}Done?"
        # Codex: an input image and text, and an image in the output of a call.
        items: Any = [
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": URI, "detail": "auto"},
                {"type": "input_file", "filename": "b.wav", "file_data": f"data:audio/wav;base64,{W64}"},
            ]},
        ]  # fmt: skip
        made = client.responses.create(model="eyes", input=items, store=False)
        assert made.output_text == f"See{SEEN}{HEARD}"
        called: Any = [
            {"role": "user", "content": "view"},
            {"type": "function_call", "call_id": "c", "name": "view_image", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": URI}]},
            {"role": "user", "content": "and?"},
        ]
        assert client.responses.create(model="eyes", input=called, store=False).output_text == "and?"
        with pytest.raises(openai.BadRequestError, match="does not support vision") as caught:
            client.responses.create(model="blind", input=called, store=False)
        assert caught.value.param == "input[2].output[0].image_url"
        with pytest.raises(openai.BadRequestError, match="does not support vision") as refused:
            client.chat.completions.create(model="blind", messages=[{"role": "user", "content": parts}])
        assert refused.value.param == "messages[0].content[1].image_url.url"
        listed = {model.id: model.to_dict() for model in client.models.list()}
        assert listed["eyes"]["architecture"] == {
            "input_modalities": ["text", "image", "audio"], "output_modalities": ["text"],
        }  # fmt: skip


def test_anthropic_sends_images_also_in_results_of_tools_and_counts_them(stack: Stack) -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": P64}}
    with anthropic.Anthropic(base_url=stack.url, api_key="x", max_retries=0) as client:
        ask: Any = [{"role": "user", "content": [image, {"type": "text", "text": "What?"}]}]
        answer = client.messages.create(model="eyes", max_tokens=99, messages=ask)
        assert answer.content[0].text == f"{SEEN}What?"  # type: ignore[union-attr]
        text: Any = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
        counted, plain = (client.messages.count_tokens(model="eyes", messages=m).input_tokens for m in (ask, text))
        assert counted > plain
        # Claude Code: the result of its tool Read is an image.
        read: Any = [
            {"role": "user", "content": "read a.png"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "a.png"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]}]},
        ]  # fmt: skip
        assert client.messages.create(model="eyes", max_tokens=99, messages=read).stop_reason == "end_turn"
        for messages in (ask, read):
            with pytest.raises(anthropic.BadRequestError, match="does not support vision"):
                client.messages.create(model="blind", max_tokens=99, messages=messages)
        models = {model.id: model.to_dict() for model in client.models.list()}
        assert models["eyes"]["capabilities"]["image_input"] == {"supported": True}
        assert models["blind"]["capabilities"]["image_input"] == {"supported": False}


def _image_of_a_tool(path: str, *, image: bool) -> dict[str, Any]:
    """A conversation whose tool answered with an image, or with a text of nothing, as clients of each API send it."""
    ask = {"role": "user", "content": "Read a.png."}
    match path:
        case "/api/chat":
            call: Any = {"function": {"name": "read", "arguments": {"path": "a.png"}}}
            answer: Any = {"role": "tool", "tool_name": "read", "content": "", **({"images": [P64]} if image else {})}
            return {
                "stream": False,
                "messages": [ask, {"role": "assistant", "content": "", "tool_calls": [call]}, answer],
            }
        case "/v1/chat/completions":
            call = {"id": "c", "type": "function", "function": {"name": "read", "arguments": '{"path": "a.png"}'}}
            parts = [{"type": "image_url", "image_url": {"url": URI}}] if image else [{"type": "text", "text": ""}]
            answer = {"role": "tool", "tool_call_id": "c", "content": parts}
            return {"messages": [ask, {"role": "assistant", "content": None, "tool_calls": [call]}, answer]}
        case "/v1/responses":
            made = {"type": "function_call", "call_id": "c", "name": "read", "arguments": '{"path": "a.png"}'}
            output: Any = [{"type": "input_image", "image_url": URI}] if image else ""
            return {
                "store": False,
                "input": [ask, made, {"type": "function_call_output", "call_id": "c", "output": output}],
            }
        case _:
            used = {"type": "tool_use", "id": "c", "name": "read", "input": {"path": "a.png"}}
            source = {"type": "base64", "media_type": "image/png", "data": P64}
            content: Any = [{"type": "image", "source": source}] if image else ""
            result = {"type": "tool_result", "tool_use_id": "c", "content": content}
            answer = {"role": "user", "content": [result]}
            return {"max_tokens": 9, "messages": [ask, {"role": "assistant", "content": [used]}, answer]}


USED = {
    "/api/chat": lambda answer: answer["prompt_eval_count"],
    "/v1/chat/completions": lambda answer: answer["usage"]["prompt_tokens"],
    "/v1/responses": lambda answer: answer["usage"]["input_tokens"],
    "/v1/messages": lambda answer: answer["usage"]["input_tokens"],
}
COUNTED = {
    "/v1/messages": "/v1/messages/count_tokens",
    "/v1/responses": "/v1/responses/input_tokens",
    "/v1/chat/completions": "/v1/chat/completions/input_tokens",
}


@pytest.mark.parametrize("path", USED)
def test_an_image_in_the_result_of_a_tool_is_read_and_counted(stack: Stack, path: str) -> None:
    seen, plain = ({"model": "eyes", **_image_of_a_tool(path, image=image)} for image in (True, False))
    used = [USED[path](post(stack, path, body)) for body in (seen, plain)]
    assert used[0] > used[1]
    assert "does not support vision" in str(post(stack, path, {**seen, "model": "blind"}, 400))
    if path in COUNTED:
        assert post(stack, COUNTED[path], seen)["input_tokens"] == used[0]
        assert "does not support vision" in str(post(stack, COUNTED[path], {**seen, "model": "blind"}, 400))


def test_open_webui_sends_data_uris(stack: Stack) -> None:
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": URI}}]
    body = {"model": "eyes", "stream": False, "messages": [{"role": "user", "content": content}]}
    told = post(stack, "/api/chat", body)["message"]["content"]
    assert told == f"What?{SEEN}"


def test_llama_server_marks_the_media_in_its_prompt(stack: Stack) -> None:
    prompt = {"prompt_string": "say it: <__media__>!", "multimodal_data": [P64]}
    for path, read in (("/completion", lambda a: a["content"]), ("/v1/completions", lambda a: a["choices"][0]["text"])):
        assert SEEN in read(post(stack, path, {"model": "eyes", "prompt": prompt}))
        assert "times <__media__>" in str(
            post(stack, path, {"model": "eyes", "prompt": {**prompt, "multimodal_data": [P64, P64]}}, 400)
        )
    old = {"model": "eyes", "prompt": "USER:[img-12]?", "image_data": [{"data": P64, "id": 12}]}
    assert SEEN in post(stack, "/completion", old)["content"]
    assert "no [img-12]" in str(post(stack, "/completion", {**old, "prompt": "x"}, 400))
    props = httpx.get(f"{stack.url}/props", params={"model": "eyes"}).json()
    assert props["modalities"] == {"vision": True, "audio": True, "video": False}
    assert props["media_marker"] == "<__media__>"


@pytest.mark.parametrize(
    ("images", "status", "words"),
    [
        ([P64] * 4, 413, "the request has 4 images and sounds, and 3 are the most"),
        ([base64.b64encode(b"GIF87a\0\4\0\4").decode()], 413, "1024 x 1024 pixels, and 400000 is the most"),
        ([base64.b64encode(PNG[:20]).decode()], 400, "its png header ends early"),
        ([base64.b64encode(b"%PDF-1.7").decode()], 400, "not an image of a known format"),
        (["!"], 400, "not base64"),
    ],
)
def test_files_beyond_the_limits_and_no_files_are_refused(
    stack: Stack, images: list[str], status: int, words: str
) -> None:
    body = {"model": "eyes", "stream": False, "messages": [{"role": "user", "content": "x", "images": images}]}
    assert words in post(stack, "/api/chat", body, status)["error"]


def test_an_address_is_refused_where_the_manifest_allows_no_host(stack: Stack) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}
    body = {"model": "eyes", "messages": [{"role": "user", "content": [part]}]}
    error = post(stack, "/v1/chat/completions", body, 400)["error"]
    assert "this server fetches none" in error["message"]
    assert error["param"] == "messages[0].content[0].image_url.url"


def test_a_text_that_looks_like_a_place_of_a_medium_stays_text(stack: Stack) -> None:
    body = {"model": "eyes", "stream": False}
    ask = {"role": "user", "content": "<__media__> is it?", "images": [P64]}
    assert post(stack, "/api/chat", {**body, "messages": [ask]})["message"]["content"] == f"{SEEN}<__media__> is it?"


def test_run_sends_named_files_and_those_in_the_prompt(stack: Stack) -> None:
    assert stack.run("run", "eyes", "What?", "-i", "a.png").stdout == f"{SEEN}What?\n"
    assert (
        stack.run("run", "eyes", "What is in ./a.png and b.wav here?").stdout == f"{SEEN}{HEARD}What is in and here?\n"
    )
    assert stack.run("run", "blind", "What is in ./a.png?").stdout == "What is in ./a.png?\n"
    missing = stack.run("run", "eyes", "What?", "-i", "none.png", code=3)
    assert "none.png does not exist" in missing.stderr
    refused = stack.run("run", "blind", "What?", "-i", "a.png", code=None)
    assert refused.returncode
    assert "does not support vision" in refused.stderr


def test_llama_cpp_reads_the_projector_beside_the_weights(empty_stack: Stack) -> None:
    """The projector is found by its name, checked by its header, loaded, and replaced by another one."""
    stack, red = empty_stack, base64.b64encode(projectors.png(56, 56)).decode()
    builders.llama(stack.home / "m.gguf")
    projectors.llava(stack.home / "mmproj-m.gguf")
    projectors.llava(stack.home / "wide.gguf", out=builders.EMBD * 2)
    seeing: dict[str, Any] = {"from": "./m.gguf", "context": {"size": 512}, "parameters": {"num_predict": 2}}
    stack.write({"m": {**seeing, "requires": ["vision"]}})
    stack.apply()

    def ask(*images: str) -> Any:
        messages = [{"role": "user", "content": "What?", "images": list(images)}]
        return post(stack, "/api/chat", {"model": "m", "messages": messages, "stream": False})

    assert ask(red)["prompt_eval_count"] >= ask()["prompt_eval_count"] + 16
    assert "vision" in stack.json("show", "m", "--json")["capabilities"]
    shown = post(stack, "/api/show", {"model": "m", "verbose": True})
    assert shown["model_info"]["llama.block_count"] == 2
    assert shown["projector_info"]["clip.projector_type"] == "mlp"
    assert {"token_embd.weight", "output_norm.weight"} <= {tensor["name"] for tensor in shown["tensors"]}
    counted = post(stack, "/v1/messages/count_tokens", {
        "model": "m", "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": red}},
            {"type": "text", "text": "What?"}]}]})  # fmt: skip
    assert counted["input_tokens"] == ask(red)["prompt_eval_count"]

    stack.write({"m": {**seeing, "mmproj": "./wide.gguf"}})
    diff = stack.run("diff", "-f", stack.name, code=None)
    assert "models.m.mmproj: the projector" in diff.stdout + diff.stderr
    assert "is one of other weights" in stack.apply(code=4).stderr
    assert ask(red)["done"]  # the old revision serves on

    stack.write({"m": {**seeing, "mmproj": "none"}})
    stack.apply()
    messages = [{"role": "user", "content": "What?", "images": [red]}]
    refused = post(stack, "/api/chat", {"model": "m", "messages": messages, "stream": False}, 400)
    assert '"m" does not support vision' in refused["error"]


def test_realtime_sessions_send_sounds_and_images(stack: Stack) -> None:
    spoken = b"\x01\x02" * 2400  # 100 ms
    heard = f"[audio {hashlib.sha256(wav_file(spoken, rate=24_000)).hexdigest()[:8]}]"
    parts: Any = [{"type": "input_image", "image_url": URI}, {"type": "input_text", "text": "Done?"}]

    def answer(connection: Any) -> str:
        connection.response.create()
        events = iter(connection)
        done = next(event.response for event in events if event.type == "response.done")
        assert done.status == "completed", done.status_details
        return str(done.output[0].content[0].text)

    def speak(connection: Any) -> None:
        connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        connection.input_audio_buffer.append(audio=base64.b64encode(spoken).decode())
        connection.input_audio_buffer.commit()

    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x") as client:
        connect = client.realtime.connect
        with connect(model="eyes", websocket_connection_options={"proxy": None}) as connection:
            speak(connection)
            assert answer(connection) == heard
            connection.conversation.item.create(item={"type": "message", "role": "user", "content": parts})
            assert answer(connection) == f"{SEEN}Done?"
            assert "mullama_realtime_sessions 1.0" in httpx.get(f"{stack.url}/metrics", timeout=30).text
            stack.run("reload", "-f", stack.name)
            assert answer(connection) == f"{SEEN}Done?"
        with connect(model="closed", websocket_connection_options={"proxy": None}) as connection:
            speak(connection)
            connection.response.create()
            error = next(event for event in connection if event.type == "error")
            assert "task: transcription" in error.error.message
