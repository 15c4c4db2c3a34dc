"""Texts behind a declared beginning have the tokens of the whole, in the vocabularies of real models (BPE and SPM)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from benches.real_models import GEMMA3, SMOLLM2
from mullama.engines.llamacpp.vocabulary import Vocabulary

pytestmark = pytest.mark.real

WORDS = (" ", "\n", "  ", "\t", "a", " the", "user\n", "é", "中文", "🙂", ">", "<", "1")


@pytest.mark.parametrize(
    ("file", "start", "end"),
    [(SMOLLM2.name, "<|im_start|>", "<|im_end|>"), (GEMMA3.name, "<start_of_turn>", "<end_of_turn>")],
)
def test_a_text_behind_a_declared_beginning(load: Callable[..., Any], file: str, start: str, end: str) -> None:
    model = load(file)._model
    plain, keeping = Vocabulary(model), Vocabulary(model)
    beginning = f"{start}system\n" + "A register that lists what it has. " * 80 + f"{end}\n{start}"
    keeping.keep_beginning(f"{beginning}user\n")
    assert list(keeping._beginnings) == [beginning]
    chance = random.Random(7)
    special = [one.text for one in plain._specials]
    for _ in range(300):
        text = beginning + "".join(chance.choice([*WORDS, *chance.choices(special, k=9)]) for _ in range(6))
        wanted = plain.encode(text, add_special=False, parse_special=True)
        assert keeping.encode(text, add_special=False, parse_special=True) == wanted
