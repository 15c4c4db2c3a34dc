"""Weights on devices other than the CPU: two devices that are lent on loopback, which llama.cpp takes for GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from mullama.engines.base import ContextOptions, EngineChoice, LayerFit, Piece, WeightsOptions
from mullama.engines.llamacpp.binding.dry_run import measure
from mullama.engines.llamacpp.engine import LlamaEngine, load
from mullama.engines.llamacpp.placing import fewer, most_layers
from mullama.errors import Invalid, NotFound, Refused, Unavailable, Unsupported
from mullama.runtime.worker.blocking import BlockingWorker
from mullama.weights.experts import EXPERTS
from mullama.weights.memory import ContextShape
from tests.engines.engine_driver import answer, ask, user
from tests.engines.engine_driver import answers as results_of
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers
from tests.lent_devices import MIB, LentDevices

SHAPE = ContextShape(size=256, sequences=2, outputs=32)
PROMPTS = [user("Say hello."), user("Count to three.")]


@pytest.fixture(scope="module")
def lent() -> Iterator[tuple[LentDevices, LentDevices]]:
    with LentDevices(256 * MIB) as first, LentDevices(64 * MIB) as second:
        yield first, second


@pytest.fixture
def opened() -> Iterator[Callable[..., LlamaEngine]]:
    """Loads a file with options of the weights, and closes the engine after the test."""
    engines: list[LlamaEngine] = []

    def one(path: str, **options: Any) -> LlamaEngine:
        engine = load((path,), WeightsOptions(**options), lambda share: True)
        engines.append(engine)
        return engine

    yield one
    for engine in engines:
        engine.close()


def layers(engine: LlamaEngine) -> list[int]:
    return [use.layers for use in engine.facts.placed]


def answers(engine: LlamaEngine) -> Any:
    engine.open_context("main", ContextOptions(size=256, parallel=2))
    jobs = [ask(number, prompt, logprobs=ALTERNATIVES, max_tokens=12) for number, prompt in enumerate(PROMPTS)]
    return results_of(engine, *jobs)


@pytest.mark.parametrize(
    ("kind", "options", "placed"),
    [
        ("tiny", {"gpu_layers": -1, "tensor_split": (1.0, 3.0)}, [2, 6]),
        ("tiny", {"gpu_layers": 4, "tensor_split": (1.0, 1.0)}, [2, 2]),
        ("tiny", {"gpu_layers": -1, "tensor_split": (0.0, 1.0)}, [8]),
        ("tiny", {"gpu_layers": -1, "split": "none", "main_gpu": 1}, [8]),
        ("experts", {"gpu_layers": -1, "tensor_split": (2.0, 3.0), "in_main_memory": (EXPERTS,)}, [2, 3]),
        ("window", {"gpu_layers": -1, "tensor_split": (2.0, 1.0)}, [2, 1]),
        ("recurrent", {"gpu_layers": -1, "tensor_split": (1.0, 2.0)}, [1, 2]),
    ],
)
def test_layers_are_on_the_devices_and_the_answers_are_those_of_the_cpu(
    lent: tuple[LentDevices, LentDevices],
    opened: Callable[..., LlamaEngine],
    random_model: Callable[[str], str],
    tiny_path: str,
    kind: str,
    options: dict[str, Any],
    placed: list[int],
) -> None:
    path = tiny_path if kind == "tiny" else random_model(kind)
    devices = tuple(one.device for one in lent)
    away, here = opened(path, devices=devices, **options), opened(path)

    assert layers(away) == placed
    assert away.facts.gpu_layers == sum(placed)
    assert layers(here) == []
    assert_same_answers(here.facts, answers(here), answers(away))


def test_the_cache_is_on_the_device_of_its_layer(
    lent: tuple[LentDevices, LentDevices], opened: Callable[..., LlamaEngine], tiny_path: str
) -> None:
    first, second = (one.device for one in lent)
    engine = opened(tiny_path, gpu_layers=-1, devices=(first, second), tensor_split=(2.0, 6.0))

    small = engine.open_context("small", ContextOptions(size=256, parallel=1))
    large = engine.open_context("large", ContextOptions(size=512, parallel=4))

    assert [use.device for use in small.placed] == [first, second]
    growth = [after.bytes - before.bytes for before, after in zip(small.placed, large.placed, strict=True)]
    # Two layers are on the first and five on the second; the compute buffers grow alike.
    assert growth[1] - growth[0] == pytest.approx(3 * (4 * 512 - 256) * 128 * 2 * 2, rel=0.05)


def test_experts_in_main_memory_take_nothing_of_the_device(
    lent: tuple[LentDevices, LentDevices], opened: Callable[..., LlamaEngine], random_model: Callable[[str], str]
) -> None:
    path, device = random_model("experts"), lent[0].device

    def weights(*patterns: str) -> int:
        (use,) = opened(path, gpu_layers=-1, devices=(device,), in_main_memory=patterns).facts.placed
        return use.bytes

    expert_bytes = 8 * 3 * 32 * 64 * 4  # of one layer: three tensors of eight experts in 32 bits
    everything = weights()
    assert everything - weights(rf"blk\.0{EXPERTS}") == pytest.approx(expert_bytes, abs=16384)
    assert everything - weights(EXPERTS) == pytest.approx(4 * expert_bytes, abs=16384)


def test_a_dry_run_measures_what_a_load_takes(
    lent: tuple[LentDevices, LentDevices], opened: Callable[..., LlamaEngine], tiny_path: str
) -> None:
    options = {"gpu_layers": -1, "devices": tuple(one.device for one in lent), "tensor_split": (1.0, 3.0)}
    engine = opened(tiny_path, **options)
    context = engine.open_context("main", ContextOptions(size=256, parallel=1))

    found = measure((tiny_path,), WeightsOptions(**options), SHAPE)

    taken = [w.bytes + c.bytes for w, c in zip(engine.facts.placed, context.placed, strict=True)]
    assert found is not None
    # Weights and cache are exact; llama.cpp simulates compute buffers that are up to 1 MiB larger here.
    assert all(took <= count < took + 2 * MIB for took, count in zip(taken, found, strict=True)), (taken, found)


@pytest.mark.parametrize(("room", "fit"), [(256 * MIB, 8), (8 * MIB, None), (1 * MIB, 0)])
def test_automatic_layers_fit_into_the_room(
    lent: tuple[LentDevices, LentDevices],
    opened: Callable[..., LlamaEngine],
    tiny_path: str,
    room: int,
    fit: int | None,
) -> None:
    device = lent[0].device
    limits = LayerFit(shape=SHAPE, rooms=(room,))

    engine = opened(tiny_path, gpu_layers=-1, devices=(device,), fit=limits)

    found = sum(layers(engine))
    assert found == fit or (fit is None and 0 < found < 8)
    for count, fits in ((found, True), (found + 1, False)):
        if 0 < count <= 8:
            needed = measure((tiny_path,), WeightsOptions(gpu_layers=count, devices=(device,)), SHAPE)
            assert needed is not None
            assert (needed[0] <= room) is fits or room - needed[0] < 64 * MIB


def test_automatic_layers_leave_room_for_what_is_beside_them(
    lent: tuple[LentDevices, LentDevices], opened: Callable[..., LlamaEngine], tiny_path: str
) -> None:
    device = lent[0].device
    found = []
    for limits in (
        LayerFit(shape=SHAPE, rooms=(8 * MIB,)),
        LayerFit(shape=SHAPE, rooms=(68 * MIB,), beside=(60 * MIB,)),
    ):
        engine = opened(tiny_path, gpu_layers=-1, devices=(device,), fit=limits)
        found.append(sum(layers(engine)))
    assert 0 < found[0] == found[1] < 8


def test_a_device_that_refuses_memory_gets_fewer_layers(
    opened: Callable[..., LlamaEngine], tiny_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device has less memory than it reported, as when another process takes some in between."""
    monkeypatch.setattr("mullama.engines.llamacpp.placing.NativeLayers.chosen", lambda _: 8)
    with LentDevices(4 * MIB) as short, ExitStack() as stack:
        limits = LayerFit(shape=SHAPE)
        engine = load(
            (tiny_path,), WeightsOptions(gpu_layers=-1, devices=(short.device,), fit=limits), lambda share: True
        )
        stack.callback(engine.close)  # llama.cpp ends a process that frees buffers of a host that is gone

        assert 0 < sum(layers(engine)) < 8
        (remark,) = engine.facts.warnings
        assert "of 8 planned layers" in remark
        assert "refused" in short.wait_for("refused")
        with pytest.raises(Refused, match="do not fit into the memory of") as refused:
            opened(tiny_path, gpu_layers=-1, devices=(short.device,))
        assert "failed to allocate" in refused.value.hint


def test_a_device_without_memory_for_a_context_gets_fewer_layers(
    tiny_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullama.engines.llamacpp.placing.NativeLayers.chosen", lambda _: 8)
    size = {"size": 1024, "parallel": 16}  # 8 MiB of cache a layer
    with LentDevices(48 * MIB) as short, ExitStack() as stack:
        weights = {"gpu_layers": -1, "devices": (short.device,)}
        fixed = load((tiny_path,), WeightsOptions(**weights), lambda share: True)
        with pytest.raises(Refused, match=r"a context of \d+ cells does not fit into the memory of the devices"):
            fixed.open_context("main", ContextOptions(**size))
        fixed.close()
        engine = load((tiny_path,), WeightsOptions(**weights, fit=LayerFit(shape=SHAPE)), lambda share: True)
        stack.callback(engine.close)
        assert engine.facts.gpu_layers == 8
        facts = engine.open_context("main", ContextOptions(**size))
        assert facts.engine == engine.facts
        assert 0 < engine.facts.gpu_layers < 8
        assert "of 8 planned layers" in engine.facts.warnings[0]
        assert answer(engine, user("How are you?"), max_tokens=4).text
        with pytest.raises(Refused, match="does not fit"):
            engine.open_context("more", ContextOptions(**size))


def text_of(path: str, **options: Any) -> str:
    """Return a greedy answer of a worker: llama.cpp aborts for some splits, which must not end the tests."""
    choice = EngineChoice(name="llamacpp", files=(path,), options=WeightsOptions(**options))
    worker = BlockingWorker(choice)
    try:
        worker.call(worker.worker.open_context("main", ContextOptions(size=256)))
        job = ask(worker.worker.next_id(), user("How are you?"), max_tokens=12)
        return "".join(output.text for output in worker.outputs(job) if isinstance(output, Piece))
    finally:
        worker.close()


def test_tensors_are_split_and_rows_are_refused(lent: tuple[LentDevices, LentDevices], tiny_path: str) -> None:
    devices = tuple(one.device for one in lent)

    assert text_of(tiny_path, gpu_layers=-1, devices=devices, split="tensor") == text_of(tiny_path) != ""
    with pytest.raises(Invalid, match=r"gpu.split is row, and RPC\d cannot split rows"):
        text_of(tiny_path, gpu_layers=-1, devices=devices, split="row")


def test_tensors_are_not_split_without_a_device(opened: Callable[..., LlamaEngine], tiny_path: str) -> None:
    with pytest.raises(Unsupported, match=r"gpu\.split is tensor, and the model has no device"):
        opened(tiny_path, split="tensor")


def test_devices_that_are_not_there_are_named(opened: Callable[..., LlamaEngine], tiny_path: str) -> None:
    with pytest.raises(NotFound, match="no device CUDA7"):
        opened(tiny_path, gpu_layers=-1, devices=("CUDA7",))
    with LentDevices(MIB) as gone:
        device = gone.device
    with pytest.raises(Unavailable, match=rf"the RPC host {gone.host} does not answer: Connection refused"):
        opened(tiny_path, gpu_layers=-1, devices=(device,))


# The search, with a device that takes 10 bytes a layer


def measured(layers: int) -> Sequence[int]:
    return (10 * layers,)


@pytest.mark.parametrize("room", [0, 5, 10, 55, 100, 320, 330, 1000])
@pytest.mark.parametrize("first", [1, 5, 20, 33])
def test_the_search_finds_the_largest_number_that_fits(room: int, first: int) -> None:
    assert most_layers(measured, (room,), first, 33) == min(33, room // 10)


def test_an_estimate_that_is_right_takes_two_dry_runs() -> None:
    tried: list[int] = []

    def counted(layers: int) -> Sequence[int]:
        tried.append(layers)
        return measured(layers)

    assert most_layers(counted, (205,), 20, 33) == 20
    assert tried == [20, 21]


def test_without_a_measure_the_estimate_is_the_result() -> None:
    assert most_layers(lambda layers: None, (1,), 20, 33) == 20


def test_fewer_layers_end_at_none() -> None:
    assert [fewer(n) for n in (33, 4, 2, 1)] == [24, 3, 1, 0]
