"""Speculative decoding in the plan: its kind, its tokens, what the headers refuse, its files and its memory."""

from __future__ import annotations

import pytest

from mullama.manifest.spec import Manifest, Model
from mullama.plan.changes import compare_models
from mullama.plan.drafting import draft_kind, draft_problem, draft_tokens, other_tokens
from mullama.plan.fit import context_shape, need
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, KnownFiles, Observed
from mullama.plan.steps import Cost
from mullama.struct import replace
from mullama.weights.facts import SpecialToken, WeightFacts
from mullama.weights.memory import ContextShape, layer_bytes
from tests import ggufs

MAIN, SMALL = "hf:acme/main-GGUF:Q4_K_M", "hf:acme/small-GGUF:Q4_0"


def facts(**changes: object) -> WeightFacts:
    from mullama.weights.inspect import inspect

    return replace(inspect([ggufs.reader(ggufs.model("llama").bytes())]), **changes)  # type: ignore[arg-type]


def model(draft: object = None, **changes: object) -> Model:
    tree: dict[str, object] = {"from": MAIN, **changes}
    return Model.model_validate(tree if draft is None else {**tree, "draft": draft})


@pytest.mark.parametrize(
    ("draft", "kind", "tokens"),
    [
        (None, "", 0),
        ({}, "ngram", 63),
        ({"from": "auto"}, "ngram", 63),
        ({"from": "none", "tokens": 4}, "", 0),
        ({"from": "ngram", "tokens": 5}, "ngram", 5),
        ({"from": "mtp"}, "mtp", 3),
        ({"from": SMALL}, "model", 16),
        ({"from": SMALL, "tokens": 0}, "", 0),
    ],
)
def test_the_kind_and_the_most_guesses_of_a_draft(draft: object, kind: str, tokens: int) -> None:
    assert (draft_kind(model(draft), None), draft_tokens(model(draft), None)) == (kind, tokens)
    assert model(draft).sources == ((MAIN, SMALL) if kind == "model" else (MAIN,))


def test_a_model_for_vectors_has_no_guesses() -> None:
    assert draft_kind(model({"from": "auto"}, task="embedding"), None) == ""


@pytest.mark.parametrize(("layers", "kind"), [(0, "ngram"), (1, "mtp"), (3, "ngram")])
def test_the_automatic_choice_reads_the_header(layers: int, kind: str) -> None:
    own = facts(drafting_layers=layers)
    assert draft_kind(model({"from": "auto"}), own) == kind
    assert draft_kind(model({"from": "ngram"}), own) == "ngram"


@pytest.mark.parametrize(
    ("draft", "drafter", "problem"),
    [
        ({"from": "ngram"}, {}, None),
        ({"from": SMALL}, {}, None),
        ({"from": SMALL}, {"vocabulary": 140}, None),
        (
            {"from": SMALL},
            {"vocabulary": 9000},
            f"the draft model {SMALL} has another vocabulary than {MAIN}: it has 9000",
        ),
        ({"from": SMALL}, {"tokenizer": "gpt2x"}, "its tokenizer is gpt2x, not"),
        ({"from": SMALL}, {"pre_tokenizer": "qwen2x"}, "its pre-tokenizer is qwen2x, not"),
        ({"from": SMALL}, {"add_bos": False}, "its texts begin without the token bos"),
        ({"from": SMALL}, {"special": (SpecialToken(role="eos", id=77, text="x"),)}, "its token eos is 77, not"),
        ({"from": SMALL}, {"role": "projector"}, f"draft.from names {SMALL}, which writes no text"),
        ({"from": SMALL}, {"causal": False}, "writes no text"),
        ({"from": "mtp"}, {}, f"draft.from is mtp, and {MAIN} has no layers that predict further tokens"),
    ],
)
def test_what_the_headers_refuse(draft: object, drafter: dict[str, object], problem: str | None) -> None:
    own = facts(add_bos=True, special=(SpecialToken(role="eos", id=2, text="</s>"),))
    if drafter.get("vocabulary") == 140:
        drafter = {"vocabulary": own.vocabulary + 100}
    found = draft_problem(model(draft), own, replace(own, **drafter))  # type: ignore[arg-type]
    assert found is None if problem is None else problem in (found or "")


def test_more_than_one_layer_for_drafting_is_refused_as_the_load_refuses_it() -> None:
    problem = draft_problem(model({"from": "mtp"}), facts(drafting_layers=3), None)
    assert problem is not None
    assert "has 3 layers that predict further tokens (nextn_predict_layers), and one is supported" in problem
    assert draft_problem(model({"from": "auto"}), facts(drafting_layers=3), None) is None


def test_the_first_tokens_and_added_ones_may_differ() -> None:
    tokens = [b"%d" % number for number in range(20)]
    assert other_tokens(tokens, [b"x", *tokens[1:], b"added"]) == ""
    assert other_tokens(tokens, [*tokens[:7], b"y", *tokens[8:]]) == "its token 7 is 'y', not '7'"


def test_layers_for_drafting_are_known_from_the_header_and_may_be_used() -> None:
    assert draft_problem(model({"from": "mtp"}), facts(drafting_layers=1), None) is None


def test_a_draft_model_is_a_part_of_the_context_memory() -> None:
    own = facts()
    alone, beside = (need(model(draft), own, None, own) for draft in (None, {"from": SMALL}))
    assert alone is not None
    assert beside is not None
    assert beside.weights == alone.weights
    assert beside.context > alone.context + alone.weights


def test_the_cache_of_a_draft_model_counts_what_the_pool_lets_it_take() -> None:
    own = facts()
    limits = {"limits": {"parallel": 4}, "draft": {"from": SMALL}}
    small, whole = (
        need(model(context={"size": 512, "pool": pool}, **limits), own, None, own) for pool in (512, "worst_case")
    )
    alone, one = (
        need(model(context={"size": 512, "pool": pool}, limits={"parallel": 4}), own, None)
        for pool in (512, "worst_case")
    )
    assert small is not None
    assert whole is not None
    assert alone is not None
    assert one is not None
    cache = sum(layer_bytes(own, ContextShape(size=512)))
    assert (whole.context - one.context) - (small.context - alone.context) == 3 * cache


def test_the_layer_for_drafting_has_a_cache_of_its_own() -> None:
    own = facts(drafting_layers=1)
    alone, beside = (need(model(draft), own, None) for draft in (None, {"from": "mtp"}))
    assert alone is not None
    assert beside is not None
    assert beside.context > alone.context + 8192 * 4


def test_guesses_need_rows_of_logits_and_recurrent_ones_states() -> None:
    own = facts()
    plain, drafted = (context_shape(model(draft), own) for draft in (None, {"from": "ngram", "tokens": 8}))
    assert drafted.outputs == plain.outputs + 32
    assert drafted.sequences == plain.sequences
    states = replace(own, per_layer=tuple(replace(layer, state=64) for layer in own.per_layer))
    plain, drafted = (context_shape(model(draft), states) for draft in (None, {"from": "ngram"}))
    assert drafted.sequences == plain.sequences + 2


@pytest.mark.parametrize(
    ("before", "after", "cost"),
    [
        (None, {"from": "ngram"}, Cost.CONTEXT),
        ({"from": "ngram"}, {"from": "ngram", "tokens": 4}, Cost.CONTEXT),
        ({"from": "ngram"}, {"from": SMALL}, Cost.FILES),
        ({"from": "mtp"}, {"from": "mtp", "tokens": 2}, Cost.CONTEXT),
        ({"from": SMALL}, {"from": "none"}, Cost.FILES),
        ({"from": SMALL}, {"from": SMALL, "until_parallel": 2}, Cost.CONTEXT),
    ],
)
def test_the_cost_of_a_change(before: object, after: object, cost: Cost) -> None:
    changes = compare_models(model(before), model(after))
    assert max((c.cost for c in changes), key=lambda c: c.rank) == cost


@pytest.mark.parametrize(("stored", "download"), [(True, 0), (False, 400)])
def test_a_plan_downloads_the_draft_model_too(stored: bool, download: int) -> None:
    files = {
        MAIN: KnownFiles(source=MAIN, stored=True, size=900, digest="sha256:a", facts=facts()),
        SMALL: KnownFiles(source=SMALL, stored=stored, size=400, digest="sha256:b", facts=facts()),
    }
    manifest = Manifest(mullama="v1", models={"m": model({"from": SMALL})})
    (step,) = make_plan(manifest, Observed(files=files)).steps
    assert step.bytes_download == download
    assert step.cost == (Cost.WEIGHTS if stored else Cost.FILES)


@pytest.mark.parametrize(
    ("before", "after", "layers", "cost"),
    [
        ({"from": "ngram"}, {"from": "mtp"}, 1, Cost.WEIGHTS),
        ({"from": "ngram"}, {"from": "auto"}, 1, Cost.WEIGHTS),
        ({"from": "ngram"}, {"from": "auto"}, 0, Cost.CONTEXT),
        ({"from": "mtp"}, {"from": "auto"}, 1, Cost.CONTEXT),
    ],
)
def test_layers_that_guess_are_loaded_with_the_weights(before: object, after: object, layers: int, cost: Cost) -> None:
    files = {MAIN: KnownFiles(source=MAIN, stored=True, digest="sha256:a", facts=facts(drafting_layers=layers))}
    old, new = (Manifest(mullama="v1", models={"m": model(draft)}) for draft in (before, after))
    applied = Applied(generation=1, revision="r", manifest=old)
    step, *_ = make_plan(new, Observed(applied=applied, files=files)).steps
    assert step.cost == cost
