"""llama-server's own endpoints on a real server: the forms that its clients read, from both engines."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

UNCACHED = {"cache_prompt": False}


def post(http: httpx.Client, path: str, **body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chunks(http: httpx.Client, path: str, **body: Any) -> list[Any]:
    answer = http.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_a_completion_has_the_settings_and_counts_of_its_answer(http: httpx.Client) -> None:
    asked = {
        "prompt": "Once upon",
        "n_predict": 4,
        "temperature": 0,
        "seed": 42,
        "ignore_eos": True,
        "cache_prompt": False,
    }

    whole = post(http, "/completion", **asked, return_tokens=True)

    settings = whole["generation_settings"]
    assert (settings["seed"], settings["temperature"], settings["n_predict"]) == (42, 0, 4)
    assert [b["bias"] for b in settings["logit_bias"]] == [None] * len(settings["logit_bias"]) != []
    assert (whole["model"], whole["tokens_predicted"], len(whole["tokens"])) == ("tiny", 4, 4)
    assert whole["tokens_cached"] == whole["tokens_evaluated"] + 3
    assert whole["prompt"].endswith("Once upon")
    assert whole["id_slot"] in range(4)
    assert (whole["stop_type"], whole["truncated"]) == ("limit", False)
    assert whole["timings"]["predicted_per_token_ms"] == pytest.approx(whole["timings"]["predicted_ms"] / 3)

    *pieces, last = chunks(http, "/completion", **asked, timings_per_token=True, return_progress=True)
    assert [t for piece in pieces for t in piece["tokens"]] == whole["tokens"]
    assert "".join(piece["content"] for piece in pieces) == whole["content"]
    assert pieces[-1]["tokens_predicted"] == last["tokens_predicted"] == 4
    progress = [piece["prompt_progress"] for piece in pieces if "prompt_progress" in piece]
    total = whole["tokens_evaluated"]
    assert [(p["processed"], p["total"], p["cache"]) for p in progress] == [(0, total, 0), (total, total, 0)]
    assert all("timings" in piece for piece in pieces)
    assert {**last, "timings": 0, "generation_settings": 0} == {
        **whole, "content": "", "tokens": [], "timings": 0, "generation_settings": 0, "id_slot": last["id_slot"]
    }  # fmt: skip


def test_one_token_has_no_rate(http: httpx.Client) -> None:
    timings = post(http, "/completion", prompt="Once", n_predict=1)["timings"]

    assert (timings["predicted_n"], timings["predicted_per_second"], timings["predicted_per_token_ms"]) == (1, 0, 0)


def test_prompts_come_in_every_form(http: httpx.Client) -> None:
    ids = post(http, "/tokenize", content="Once upon", add_special=True)["tokens"]
    once, upon = (post(http, "/tokenize", content=text)["tokens"] for text in ("Once", " upon"))
    assert post(http, "/tokenize", content=[*once, " upon"])["tokens"] == [*once, *upon]

    answers = post(
        http, "/completion", n_predict=3, temperature=0, cache_prompt=False,
        prompt=["Once upon", ids, {"prompt_string": "Once upon"}, [*ids[:-1], *upon]],
    )  # fmt: skip
    assert len({answer["content"] for answer in answers[:3]}) == 1
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3]
    assert [answer["tokens_predicted"] for answer in answers] == [3, 3, 3, 3]
    assert answers[0]["tokens_evaluated"] == len(ids)

    parts = {"content": [{"type": "text", "text": "Once"}, {"type": "text", "text": " upon"}]}
    vectors = post(http, "/v1/embeddings", model="tiny", input=["Once upon", parts, {"prompt_string": "Once upon"}])
    first, *others = (one["embedding"] for one in vectors["data"])
    assert all(other == pytest.approx(first, abs=1e-3) for other in others)
    for refused in ({"prompt_string": "a", "multimodal_data": ["eA=="]}, [{"content": [{"type": "image_url"}]}]):
        answer = http.post("/embedding", json={"content": refused})
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("form", [lambda pairs: pairs, dict])
def test_biases_name_tokens_by_text(http: httpx.Client, form: Any) -> None:
    asked = {"prompt": "Once upon", "n_predict": 1, "temperature": 0}
    free = post(http, "/completion", **asked)
    banned = free["content"]
    ids = post(http, "/tokenize", content=banned)["tokens"]

    biased = post(
        http, "/completion", prompt="Once upon", n_predict=1, temperature=0, logit_bias=form([[banned, False]])
    )

    assert biased["generation_settings"]["logit_bias"] == [{"bias": None, "token": id} for id in ids]


def test_probabilities_after_sampling(http: httpx.Client) -> None:
    answer = post(
        http, "/completion", prompt="Once", n_predict=3, n_probs=10, top_k=5, temperature=1, post_sampling_probs=True
    )

    for token in answer["completion_probabilities"]:
        assert 0 < token["prob"] <= 1
        assert sum(top["prob"] for top in token["top_probs"]) == pytest.approx(1, abs=1e-4)


def test_a_chat_shows_its_prompt_its_progress_and_its_timings(http: httpx.Client) -> None:
    asked = {"model": "script", "messages": [{"role": "user", "content": "say one two"}], "cache_prompt": False}

    whole = post(http, "/v1/chat/completions", **asked, verbose=True)
    assert "say one two" in whole["__verbose"]["prompt"]
    assert (whole["__verbose"]["content"], whole["__verbose"]["model"]) == ("one two", "script")

    options = {"return_progress": True, "timings_per_token": True, "stream_options": {"include_usage": True}}
    seen = chunks(http, "/v1/chat/completions", **asked, **options)
    progress = [chunk["prompt_progress"] for chunk in seen if "prompt_progress" in chunk]
    assert [p["processed"] for p in progress] == [0, progress[0]["total"]]
    texts = [c for c in seen if c["choices"] and c["choices"][0]["delta"].get("content")]
    assert [c["timings"]["predicted_n"] for c in texts] == list(range(1, len(texts) + 1))
    assert (seen[-1]["choices"], seen[-1]["timings"]["predicted_n"]) == ([], len(texts))


def test_a_template_may_end_without_the_start_of_the_answer(http: httpx.Client) -> None:
    for model in ("tiny", "script"):
        asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        opened = post(http, "/apply-template", **asked)["prompt"]
        closed = post(http, "/apply-template", **asked, add_generation_prompt=False)["prompt"]
        assert closed == opened[: opened.index("<|im_start|>assistant")]


def test_slots_and_properties_show_the_settings_of_requests(http: httpx.Client) -> None:
    answer = post(http, "/completion", model="single", prompt="Once", n_predict=2, seed=11)
    [slot] = http.get("/slots", params={"model": "single"}).json()
    assert (slot["id"], slot["is_processing"], answer["id_slot"]) == (0, False, 0)
    assert (slot["params"]["seed"], slot["params"]["n_predict"]) == (11, 2)
    assert slot["next_token"][0]["n_remain"] == -1

    assert http.get("/props").json()["model_alias"] == "tiny"  # the default model
    assert http.get("/props").json()["default_generation_settings"]["params"]["temperature"] == 0


def test_a_list_has_each_model_once_and_a_route_is_its_alias(http: httpx.Client) -> None:
    by_name = {model["id"]: model for model in http.get("/models").json()["data"]}
    assert set(by_name) == {"tiny", "single", "script"}
    assert by_name["script"]["aliases"] == ["gpt-4o-mini"]
    assert "gpt-4o-mini" in {model["id"] for model in http.get("/v1/models").json()["data"]}
    assert http.get("/models/gpt-4o-mini").json()["id"] == "gpt-4o-mini"


def test_the_states_of_models_are_streamed(http: httpx.Client) -> None:
    with http.stream("GET", "/models/sse") as events:
        lines = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
        seen = [next(lines) for _ in range(3)]
    assert {event["model"] for event in seen} == {"tiny", "single", "script"}
    assert {(event["event"], event["data"]["status"]) for event in seen} == {("model_status", "loaded")}
    assert http.post("/models/load", json={"model": "tiny"}).status_code == 400  # it is loaded
    assert http.post("/models/load", json={"model": "nothing"}).status_code == 404
