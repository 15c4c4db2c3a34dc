"""The recipe of the built-in model writes sound samples, keeps its probes apart, and the shipped file fits its page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import gguf
import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "examples" / "tiny-model"
SHIPPED = ROOT / "mullama" / "sources" / "builtin_models" / "tiny.gguf"
sys.path.insert(0, str(RECIPE))

from tiny_recipe.media import questions as media_questions  # noqa: E402
from tiny_recipe.phrases import asking, systems, talk, told  # noqa: E402
from tiny_recipe.phrases.facts import FAMILIES  # noqa: E402
from tiny_recipe.phrases.mullama import MULLAMA  # noqa: E402
from tiny_recipe.phrases.phrasing import Phrasings  # noqa: E402
from tiny_recipe.phrases.tools import DOMAINS  # noqa: E402
from tiny_recipe.phrases.words import CITIES, NAMES, WORDS  # noqa: E402
from tiny_recipe.rendering import prompt_of, rendered  # noqa: E402
from tiny_recipe.samples.exercises import change_case, count, say_times, spell  # noqa: E402
from tiny_recipe.samples.mix import questions, samples  # noqa: E402
from tiny_recipe.samples.probes import probes, same_question  # noqa: E402
from tiny_recipe.samples.reword import bare, reworded  # noqa: E402
from tiny_recipe.samples.tool_use import tool_set  # noqa: E402
from tiny_recipe.samples.values import Probe, Sample  # noqa: E402
from tiny_recipe.samples.writer import Writer  # noqa: E402
from tiny_recipe.scoring import names_called, passes  # noqa: E402

TEMPLATE = (RECIPE / "chat_template.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def learned() -> list[Sample]:
    return list(islice(samples(7), 700))


@pytest.fixture(scope="module")
def examined() -> list[Probe]:
    return list(probes(10))


def as_written(probe: Probe) -> str:
    """The wanted answer as the model has to write it."""
    thought = "<think>\nSo be it.\n</think>\n\n" if probe.thinking else ""
    calls = [call["function"] for call in probe.want.get("tool_calls", ())]
    blocks = [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls]
    return thought + ("\n".join(blocks) if calls else probe.want["content"])


def test_no_training_sample_holds_the_question_of_a_probe(learned: list[Sample]) -> None:
    asked = {same_question(probe.question) for probe in probes(100)}
    assert asked.isdisjoint(same_question(question) for sample in learned for question in questions(sample))


def test_no_training_sample_holds_a_held_out_name(learned: list[Sample]) -> None:
    w = Writer(0, held_out=True)
    held_out = [name for name in NAMES if w.mine(name)]
    texts = [rendered(sample) for sample in learned]
    assert len(held_out) > 10
    assert not [name for name in held_out if any(f" {name} " in text or f'"{name}"' in text for text in texts)]


@pytest.mark.parametrize("table", [NAMES, CITIES, WORDS], ids=["names", "cities", "words"])
def test_each_word_of_a_table_is_either_learned_or_held_out(table: list[str]) -> None:
    learner, examiner = Writer(0, held_out=False), Writer(0, held_out=True)
    assert all(learner.mine(word) != examiner.mine(word) for word in table)
    assert 0.1 < sum(map(examiner.mine, table)) / len(table) < 0.35


def test_samples_and_probes_are_the_same_for_the_same_seed(examined: list[Probe]) -> None:
    assert list(islice(samples(3), 40)) == list(islice(samples(3), 40))
    assert list(probes(10)) == examined


def test_every_ability_has_the_probes_asked_for(examined: list[Probe]) -> None:
    abilities = [probe.ability for probe in examined]
    assert len(set(abilities)) == 29
    assert {abilities.count(ability) for ability in abilities} == {10}


def test_the_wanted_answer_passes_and_another_one_does_not(examined: list[Probe]) -> None:
    for probe in examined:
        assert passes(probe, as_written(probe)), probe
        assert not passes(probe, as_written(probe)[:-1][: len(as_written(probe)) // 4] + "~"), probe


def test_the_names_of_called_tools_are_read_and_broken_calls_are_passed_over() -> None:
    text = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>\n<tool_call>\n{"name": "x"\n</tool_call>'
    assert names_called(text) == ["add"]
    assert names_called("No tool fits.") == []


def calls_with_tools(learned: list[Sample]) -> list[tuple[dict[str, Any], list[Any]]]:
    return [
        (call["function"], sample.tools)
        for sample in learned
        for message in sample.messages
        for call in message.get("tool_calls", ())
    ]


def test_every_learned_call_names_an_offered_tool_and_obeys_its_schema(learned: list[Sample]) -> None:
    calls = calls_with_tools(learned)
    assert len(calls) > 300
    for call, tools in calls:
        (tool,) = [tool["function"] for tool in tools if tool["function"]["name"] == call["name"]][:1]
        jsonschema.validate(call["arguments"], tool["parameters"])


def test_the_words_of_a_call_stand_in_the_request(learned: list[Sample]) -> None:
    for sample in learned:
        for asked, answer in zip(sample.messages, sample.messages[1:], strict=False):
            for call in answer.get("tool_calls", ()):
                said = [v for v in call["function"]["arguments"].values() if not isinstance(v, bool)]
                assert all(str(value).lower() in asked["content"].lower() for value in said)


def test_a_thought_comes_between_its_marks_and_before_the_answer(learned: list[Sample]) -> None:
    thoughtful = [sample for sample in learned if sample.thought is not None]
    assert thoughtful
    for sample in thoughtful:
        assert f"<|im_start|>assistant\n<think>\n{sample.thought}\n</think>\n\n" in rendered(sample)


def test_every_answer_of_a_conversation_ends_with_the_end_mark(learned: list[Sample]) -> None:
    for sample in learned:
        end = "<|im_end|>\n" if sample.text is None else "<|endoftext|>"
        assert rendered(sample).endswith(end)


def test_a_probe_without_thinking_is_asked_with_an_empty_thought(examined: list[Probe]) -> None:
    for probe in examined:
        if probe.prompt is None:
            empty = prompt_of(probe).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
            assert empty is not probe.thinking


def test_what_fills_a_hole_uses_only_names_that_stand_around_it(examined: list[Probe]) -> None:
    holes = [probe for probe in examined if probe.prompt is not None]
    assert len(holes) == 10
    assert all(str(probe.prompt).endswith("<|fim_middle|>") and probe.want["content"].strip() for probe in holes)


@pytest.mark.parametrize("seed", range(30))
def test_exercises_are_worked_out_right(seed: int) -> None:
    w = Writer(seed, held_out=False)
    spelled, said, counted = spell(w), say_times(w), count(w)
    assert spelled.reply.replace("-", "") in spelled.question
    assert len(set(said.reply.split())) == 1
    assert said.reply.split()[0] in said.question
    numbers = [int(number) for number in counted.reply.split(", ")]
    assert {abs(a - b) for a, b in pairwise(numbers)} == {1}
    changed = change_case(w)
    assert changed.reply in (changed.reply.upper(), changed.reply.lower())
    assert changed.question.lower().endswith(changed.reply.lower())


def test_a_word_like_another_has_its_beginning_its_end_or_a_piece_and_is_none_that_only_probes_use() -> None:
    w = Writer(3, held_out=False)
    likes = [w.like("Klegris") for _ in range(200)]
    assert "Klegris" not in likes
    assert all(map(w.mine, likes))
    for holds in (lambda x: x.startswith("Kle"), lambda x: x.endswith("ris"), lambda x: "egr" in x[1:-1]):
        assert 2 < sum(map(holds, likes)) < 150


@pytest.mark.parametrize("seed", range(20))
def test_muddled_words_hold_two_that_are_easily_mixed_up(seed: int) -> None:
    w = Writer(seed, held_out=False)
    before = ["brelko", "munz", "favik"]
    words = before.copy()
    w.muddled(words)
    changed = [i for i in range(3) if words[i] != before[i]]
    assert len(changed) == 1
    assert w.mine(words[changed[0]]) or words[changed[0]] in before


def test_no_offered_tool_serves_a_foreign_request() -> None:
    w = Writer(5, held_out=False)
    for _ in range(300):
        tools = tool_set(w)
        assert len(tools.foreign) >= 2
        assert not [offer for offer in tools.offers if offer.domain in tools.foreign]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("What is {a}?", "what {a} is"),
        ("What does {an_a} say?", "what {an_a} says"),
        ("Define {a}.", "efine {a}"),
        ("capital of {a}", "capital of {a}"),
    ],
)
def test_rewording_keeps_the_open_places_of_a_phrasing(text: str, allowed: str) -> None:
    for seed in range(20):
        assert allowed in reworded(Writer(seed, held_out=False).rng, text)


def all_phrasings() -> Iterator[Phrasings]:
    yield from (family.asked for family in FAMILIES)
    yield from (reply.asked for group in (talk.LISTS, talk.IDENTITY, talk.SMALL_TALK, MULLAMA) for reply in group)
    yield from (domain.requests for domain in DOMAINS)
    yield from (
        phrasings for thing in (told.NAME, told.COLOUR, *told.OTHERS) for phrasings in (thing.said, thing.asked)
    )
    yield from (
        v
        for module in (asking, systems, told, talk, media_questions)
        for v in vars(module).values()
        if isinstance(v, Phrasings)
    )


def test_no_phrasing_is_both_learned_and_held_out_but_for_marks_and_case() -> None:
    lists = list(all_phrasings())
    assert len(lists) > 140
    assert not [p.held_out for p in lists if not set(map(bare, p.learned)).isdisjoint(map(bare, p.held_out))]


def test_a_learner_is_never_given_a_held_out_phrasing() -> None:
    phrasings = Phrasings(("Define {a}.", "What is {a}?"), ("Please define {a}.", "Tell me what {a} is."))
    w = Writer(1, held_out=False)
    assert {w.phrase(phrasings) for _ in range(400)}.isdisjoint(phrasings.held_out)


def test_the_shipped_model_is_a_small_llama_with_the_template_of_the_recipe() -> None:
    assert SHIPPED.stat().st_size <= 8 * 2**20
    fields = gguf.GGUFReader(SHIPPED).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["llama.context_length"].contents() >= 1024
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE
