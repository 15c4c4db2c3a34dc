"""The Python API: the examples of docs/python.md, errors that can be caught, and memory that is returned."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import mullama
from mullama import Context, ContextParams, Model, ModelParams, MullamaError, Sampling
from mullama.errors import BadWeights, ContextOverflow, EngineFailed, Invalid, NotFound, Refused, Unsupported

GREEDY = Sampling(temperature=0)
GUIDE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tiny() -> Iterator[Model]:
    with Model.load("builtin:tiny") as model:
        yield model


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Model]:
    path = tmp_path / "two words.script.json"
    path.write_text(json.dumps({"faults": True, "constraints": True}))
    with Model.load(path) as model:
        yield model


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
def test_each_example_of_the_guide_runs(example: str) -> None:
    exec(compile(example, "docs/python.md", "exec"), {})


def test_the_api_is_not_imported_before_it_is_used() -> None:
    code = "import sys, mullama; mullama.__version__; print('asyncio' in sys.modules); mullama.Model; import llama_cpp"
    heavy = "import sys, mullama; mullama.Model; print('llama_cpp' in sys.modules)"
    for script in (code.rsplit(";", 2)[0], heavy):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"
    assert {"Model", "Context", "__version__"} <= set(dir(mullama))
    with pytest.raises(AttributeError, match="Modell"):
        _ = mullama.Modell


def test_a_stream_yields_pieces_as_they_are_made_and_then_has_its_answer(tiny: Model) -> None:
    prompt = tiny.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}])
    with Context(tiny) as context:
        stream = context.generate_stream(prompt, 64, params=GREEDY)
        pieces = list(stream)
        assert len(pieces) > 3
        assert "Paris" in "".join(pieces)
        assert stream.answer is not None
        assert stream.answer.reason == "stop"
        assert stream.answer.prompt_tokens == len(tiny.tokenize(prompt))
        assert context.generate(prompt, 64, params=GREEDY) == "".join(pieces), "greedy answers are the same twice"


def test_a_closed_stream_ends_its_request(tiny: Model) -> None:
    with Context(tiny) as context, context.generate_stream("Once", 900) as stream:
        assert next(stream)
        stream.close()
        assert list(stream) == []
        assert context.generate("Once", 4), "its only sequence is free again"


def test_several_contexts_over_one_model_are_independent(tiny: Model) -> None:
    small = ContextParams(n_ctx=128, kv_cache_type="q8_0")
    with Context(tiny) as large, Context(tiny, small) as other:
        large.generate("Some words to remember, many enough to be worth it. " * 3, 4)
        here, there = large.memory_info(), other.memory_info()
        assert here.token_count > 30
        assert there.token_count == 0
        assert (here.context_size, there.context_size) == (tiny.n_ctx_train, 128)
        assert here.model_size == there.model_size == tiny.size
        assert there.kv_cache_size < here.kv_cache_size / 7, "fewer cells, each of fewer bytes"
        assert here.total_allocated == here.model_size + here.kv_cache_size + here.compute_size
        large.clear()
        assert large.memory_info().token_count == 0
        assert large.generate("Hello", 2)


def test_threads_share_one_context(tiny: Model) -> None:
    with Context(tiny, ContextParams(n_ctx=256, n_seq_max=4)) as context:
        prompt = tiny.apply_chat_template([{"role": "user", "content": "Who are you?"}])
        alone = context.generate(prompt, 12, params=GREEDY)
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.append(context.generate(prompt, 12, params=GREEDY)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [alone] * 4


def test_answers_follow_a_schema(tiny: Model) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"]}
    with Context(tiny) as context:
        assert json.loads(context.generate("Give me a number", 40, format=schema)).keys() == {"n"}


def test_tokens_and_vectors(tiny: Model) -> None:
    assert tiny.detokenize(tiny.tokenize("Grüße, 世界!", add_special=False)) == "Grüße, 世界!"
    with Context(tiny, ContextParams(embeddings=True, n_ctx=64)) as context:
        one = context.embed("hello")
        assert len(one) == tiny.n_embd
        assert sum(x * x for x in one) == pytest.approx(1.0, abs=1e-3)
        assert context.embed(["hello", "bye"])[0] == pytest.approx(one, abs=1e-3)
        assert context.embed([]) == []
    with (
        Context(tiny, ContextParams(embeddings=True, n_ctx=64, pooling_type="none")) as context,
        pytest.raises(Unsupported, match="a vector for each token"),
    ):
        context.embed("hello")


def test_a_context_that_does_not_fit_is_refused_before_it_is_allocated_and_a_smaller_one_opens(tiny: Model) -> None:
    with pytest.raises(Refused, match=r"the load needs .* of main memory"):
        Context(tiny, ContextParams(n_ctx=2**30, n_seq_max=8))
    with Context(tiny, ContextParams(n_ctx=128, n_seq_max=8)) as context:
        assert context.generate("Hello", 1)


def test_a_crash_is_an_error_and_not_the_end_of_the_program(scripted: Model) -> None:
    with Context(scripted) as context, pytest.raises(EngineFailed, match="SIGSEGV"):
        context.generate("crash segv")
    with pytest.raises(EngineFailed):
        scripted.tokenize("the model is dead")
    scripted.close()


def test_a_worker_that_is_killed_ends_the_stream_with_an_error(scripted: Model) -> None:
    with Context(scripted) as context:
        stream = context.generate_stream("slow 20ms count to 500", 400)
        next(stream)
        os.kill(scripted._engine.worker.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="killed"):
            list(stream)


@pytest.mark.parametrize("source", ["./nope.gguf", "/nope/nope.gguf", "nope.gguf", "~/nope.gguf"])
def test_a_path_without_a_file_does_not_exist(source: str) -> None:
    with pytest.raises(NotFound) as caught:
        Model.load(source)
    assert caught.value.message == f"{source} does not exist"
    assert "manifest" not in caught.value.hint


def test_errors_name_the_wrong_argument(tiny: Model, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 64)
    with pytest.raises(NotFound, match="nowhere"):
        Model.load("nowhere/at/all.gguf")
    with pytest.raises(BadWeights):
        Model.load(bad)
    for wrong in ({"n_ctx": -1}, {"n_batch": 0}, {"kv_cache_type": "q3"}, {"flash_attn": "maybe"}, {"n_ctx": True}):
        with pytest.raises(Invalid, match=next(iter(wrong))):
            ContextParams(**wrong)
    with pytest.raises(Invalid, match="n_gpu_layers"):
        ModelParams(n_gpu_layers=-2)
    with Context(tiny, ContextParams(n_ctx=32)) as context:
        with pytest.raises(ContextOverflow, match="the context 32"):
            context.generate("word " * 100)
        with pytest.raises(Invalid, match="max_tokens"):
            context.generate("Hello", 0)
        with pytest.raises(MullamaError, match="token"):
            context.generate([10**9])
        with pytest.raises(Invalid, match="format"):
            context.generate("Hello", format="xml")  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="role"):
            tiny.apply_chat_template([{"role": "king", "content": "Hello"}])


def test_closing_twice_does_nothing_and_using_a_closed_object_raises_invalid(tmp_path: Path) -> None:
    path = tmp_path / "a.script.json"
    path.write_text("{}")
    model = Model.load(path)
    context = Context(model)
    child = psutil.Process(model._engine.worker.pid)
    context.close()
    context.close()
    with pytest.raises(Invalid, match="closed"):
        context.generate("Hello")
    model.close()
    model.dispose()
    assert not child.is_running()
    for use in (lambda: model.tokenize("a"), lambda: Context(model)):
        with pytest.raises(Invalid, match="closed"):
            use()
    context.close()


def test_a_model_without_references_ends_its_child_process(tmp_path: Path) -> None:
    path = tmp_path / "a.script.json"
    path.write_text("{}")
    model = Model.load(path)
    child = psutil.Process(model._engine.worker.pid)
    del model
    gc.collect()
    assert not child.is_running()
