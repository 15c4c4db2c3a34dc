"""Requests and measurements of a load."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.cli.inference.load_test import Load, quantile, words
from mullama.cli.inference.load_test import run as run_load
from mullama.client.address import ServerAddress
from tests.e2e.stack import serving


def test_each_request_has_words_of_its_own_and_the_same_ones_in_every_run() -> None:
    load = Load(model="m", prompt_len=20, shared_len=5, gen_len=7)
    bodies = [load.body(number) for number in range(3)]
    systems = {body["messages"][0]["content"] for body in bodies}
    users = {body["messages"][1]["content"] for body in bodies}
    assert (len(systems), len(users)) == (1, 3)
    assert [len(text.split()) for text in (*systems, *users)] == [5, 20, 20, 20]
    assert load.body(1) == bodies[1]
    assert bodies[0]["max_tokens"] == 7
    assert bodies[0]["ignore_eos"] is True


def test_a_completion_begins_with_the_shared_words() -> None:
    body = Load(model="m", api="completions", prompt_len=3, shared_len=2, until_end=True).body(0)
    assert body["prompt"].startswith(words(2, -1) + " ")
    assert "ignore_eos" not in body


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 3.0), (list(map(float, range(100))), 0.99, 99.0)],
)
def test_a_quantile_is_one_of_the_values(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


@pytest.mark.anyio
async def test_a_load_on_a_mullama_server_counts_the_tokens(tmp_path: Path) -> None:
    (tmp_path / "s.script.json").write_text('{"default": "count to 9"}')
    models = {"m": {"from": str(tmp_path / "s.script.json"), "limits": {"parallel": 4}}}
    with serving(tmp_path, models) as stack:
        load = Load(model="m", clients=4, requests=2, prompt_len=4, gen_len=6)
        measured = await run_load(ServerAddress.parse(stack.url), load)
    assert len(measured.samples) == 8
    assert all(0 < sample.tokens <= 6 and sample.first > 0 and sample.text for sample in measured.samples)
