"""Stored objects as the openai package uses them: chat completions, background responses, compaction, a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.client_helpers import FRANCE, user
from tests.e2e.stack import Stack, serving
from tests.official_clients import openai


def make(gpt: openai.OpenAI, text: str, **metadata: str) -> Any:
    return gpt.chat.completions.create(model="script", messages=user(text), store=True, metadata=metadata)


def test_chat_completions_are_stored_listed_changed_and_deleted(gpt: openai.OpenAI) -> None:
    made = [make(gpt, f"say number {i}", run="one", n=str(i)) for i in range(5)]
    unstored = gpt.chat.completions.create(model="script", messages=user("say no"))

    listed = list(gpt.chat.completions.list(metadata={"run": "one"}, limit=2))
    assert [one.id for one in listed] == [one.id for one in made], "the client follows the pages"
    newest = gpt.chat.completions.list(metadata={"run": "one"}, order="desc", limit=1)
    assert (newest.data[0].id, newest.has_more) == (made[-1].id, True)
    assert gpt.chat.completions.list(metadata={"run": "one", "n": "3"}).data[0].id == made[3].id
    assert gpt.chat.completions.list(metadata={"run": "one"}, model="tiny").data == []

    found = gpt.chat.completions.retrieve(made[0].id)
    assert found.choices[0].message.content == made[0].choices[0].message.content == "number 0"
    changed: Any = gpt.chat.completions.update(made[0].id, metadata={"run": "two"})
    assert changed.metadata == {"run": "two"}
    assert [one.id for one in gpt.chat.completions.list(metadata={"run": "two"})] == [made[0].id]

    messages = gpt.chat.completions.messages.list(made[0].id)
    assert [(m.role, m.content) for m in messages.data] == [("user", "say number 0")]  # type: ignore[comparison-overlap]
    assert gpt.chat.completions.delete(made[0].id).deleted
    for id in (made[0].id, unstored.id):
        with pytest.raises(openai.NotFoundError, match="not found"):
            gpt.chat.completions.retrieve(id)
    for one in made[1:]:
        gpt.chat.completions.delete(one.id)


def test_a_streamed_chat_completion_is_stored_whole(gpt: openai.OpenAI) -> None:
    stream = gpt.chat.completions.create(
        model="script", messages=user("say one two three"), store=True, stream=True, metadata={"run": "stream"}
    )
    (id,) = {chunk.id for chunk in stream}
    found = gpt.chat.completions.retrieve(id)
    assert found.choices[0].message.content == "one two three"
    assert found.usage is not None
    assert found.usage.completion_tokens > 0
    gpt.chat.completions.delete(id)


def test_a_background_stream_is_taken_up_again(gpt: openai.OpenAI) -> None:
    stream = gpt.responses.create(model="script", input="say one two three", background=True, stream=True)
    first = [next(stream) for _ in range(4)]
    stream.close()
    id = first[0].response.id  # type: ignore[union-attr]
    rest = list(gpt.responses.retrieve(id, stream=True, starting_after=3))
    assert [event.sequence_number for event in rest] == list(range(4, 4 + len(rest)))
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == "one two three"
    assert gpt.responses.retrieve(id).status == "completed"


def test_a_background_response_is_polled(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(model="script", input="say yes", background=True)
    assert answer.status == "queued"
    while answer.status in ("queued", "in_progress"):
        answer = gpt.responses.retrieve(answer.id)
    assert (answer.status, answer.output_text) == ("completed", "yes")
    assert gpt.responses.cancel(answer.id).status == "completed"


def test_a_conversation_is_compacted_and_continued(gpt: openai.OpenAI) -> None:
    before = gpt.responses.create(model="script", input="say My cat is Tom.")
    compacted = gpt.responses.compact(model="script", input="say Good.", previous_response_id=before.id)
    assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
    assert compacted.usage.output_tokens > 0
    items: Any = [item.model_dump(exclude_none=True, warnings=False) for item in compacted.output]
    after = gpt.responses.create(model="script", input=[*items, {"role": "user", "content": "say Done."}])
    assert after.output_text == "Done."


def test_the_tokens_of_a_continued_response_are_counted(gpt: openai.OpenAI) -> None:
    before = gpt.responses.create(model="tiny", input=FRANCE, max_output_tokens=8)
    alone = gpt.responses.input_tokens.count(model="tiny", input="And Spain?").input_tokens
    after = gpt.responses.input_tokens.count(model="tiny", input="And Spain?", previous_response_id=before.id)
    answer = gpt.responses.create(model="tiny", input="And Spain?", previous_response_id=before.id, max_output_tokens=2)
    assert after.input_tokens > alone
    assert answer.usage is not None
    assert answer.usage.input_tokens == after.input_tokens


def test_stored_objects_survive_a_restart(tmp_path: Path) -> None:
    def client(stack: Stack) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=60)

    (tmp_path / "s.script.json").write_text("{}")
    models = {"script": {"from": "./s.script.json"}}
    with serving(tmp_path, models) as stack, client(stack) as gpt:
        answer = gpt.responses.create(model="script", input="say one")
        made = make(gpt, "say two")
    with serving(tmp_path, models) as stack, client(stack) as gpt:
        assert gpt.responses.retrieve(answer.id).output_text == "one"
        assert gpt.chat.completions.retrieve(made.id).choices[0].message.content == "two"
        follow = gpt.responses.create(model="script", input="say three", previous_response_id=answer.id)
        assert follow.output_text == "three"
    (folder,) = (tmp_path / "state" / "mullama").glob("*/objects.sqlite")
    assert folder.stat().st_mode & 0o777 == 0o600
