"""The order in which parallel processes are given the modules of tests."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tests.processes.order import WAITING, is_short, module_of, ordered


@given(st.none())
def law(_: None) -> None:
    """A test of many examples."""


@dataclass
class Listed:
    nodeid: str
    function: object = None


def of(module: str, count: int = 1, function: object = None) -> list[Listed]:
    return [Listed(f"tests/{module}.py::test_{number}", function) for number in range(count)]


def order(*modules: list[Listed]) -> list[str]:
    found = ordered([test for module in modules for test in module])
    names = dict.fromkeys(module_of(test).removeprefix("tests/").removesuffix(".py") for test in found)
    return list(names)


def test_modules_that_wait_are_first_and_short_ones_last() -> None:
    parts = [of(f"{folder}/test_it") for folder in ("chat", "cli", "e2e", "engines", "hosts", "server", "browser")]
    wanted = ["hosts", "browser", "e2e", "cli", "server", "engines", "chat"]
    assert order(*parts) == [f"{folder}/test_it" for folder in wanted]


def test_of_the_modules_that_wait_the_one_with_most_tests_is_first() -> None:
    for folder in WAITING:
        assert order(of(f"{folder}/a", 2), of(f"{folder}/b", 9), of(f"{folder}/c", 4)) == [
            f"{folder}/{name}" for name in "bca"
        ]


def test_a_unit_module_with_a_law_is_long() -> None:
    laws = [*of("chat/test_laws", 3), *of("chat/test_laws", 1, law)]
    assert is_short(of("chat/test_values"))
    assert not is_short(laws)
    assert order(of("chat/test_values"), laws, of("engines/test_it")) == [
        "chat/test_laws", "engines/test_it", "chat/test_values",
    ]  # fmt: skip


def test_the_tests_of_a_module_keep_their_order_and_stay_together() -> None:
    parts = [*of("e2e/a", 3), *of("plan/b", 3), *of("runtime/scheduler/c", 2), *of("runtime/d", 2)]
    found = ordered(parts)
    assert sorted(test.nodeid for test in found) == sorted(test.nodeid for test in parts)
    assert [test.nodeid for test in found if "e2e" in test.nodeid] == [test.nodeid for test in of("e2e/a", 3)]
    assert order(parts) == ["e2e/a", "runtime/d", "plan/b", "runtime/scheduler/c"]
