"""The order of the modules of tests, so that parallel processes end at the same time.

A run ends soon after its longest modules only if they begin first. No durations are kept: a static order by folder is
the same on each machine. Modules that wait begin together with modules that compute, and short ones fill the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

from hypothesis import is_hypothesis_test

UNIT = ("chat", "dialects", "manifest", "plan", "runtime/scheduler", "weights")
"""Folders whose tests only compute: no process, no socket, no model. Each of their tests ends within seconds."""

WAITING = ("hosts", "browser", "e2e")
"""Folders whose tests wait for hosts that are lost, for a page, and for processes: the longest waits first."""

COMPUTING = ("engines",)
"""Folders whose tests compute with models."""


def is_in(path: str, folders: Iterable[str]) -> bool:
    """Return whether a path relative to the root of the project is in one of these folders of tests."""
    return path.startswith(tuple(f"tests/{folder}/" for folder in folders))


class Collected(Protocol):
    """The part of a `pytest.Item` that the order depends on. `function`, where there is one, may be a law."""

    @property
    def nodeid(self) -> str: ...


T = TypeVar("T", bound=Collected)


def is_law(test: Collected) -> bool:
    """Return whether a test runs many examples."""
    return is_hypothesis_test(getattr(test, "function", None))


def module_of(test: Collected) -> str:
    """Return the path of the module of a test, relative to the root of the project."""
    return test.nodeid.partition("::")[0]


def ordered(tests: Iterable[T]) -> list[T]:
    """Return the tests by module: those that wait, the others, those that compute, and short ones.

    Of the folders that wait, the modules with most tests are first. All other modules keep their order.
    """
    modules = [list(group) for _, group in groupby(tests, module_of)]
    return [test for group in sorted(modules, key=_place) for test in group]


def is_short(tests: Iterable[Collected]) -> bool:
    """Return whether the tests of a module end within a few seconds: unit tests without laws."""
    return all(is_in(module_of(test), UNIT) and not is_law(test) for test in tests)


def _place(tests: Sequence[Collected]) -> tuple[int, int]:
    module = module_of(tests[0])
    for number, folder in enumerate(WAITING):
        if is_in(module, (folder,)):
            return number, -len(tests)
    if is_short(tests):
        return len(WAITING) + 3, 0
    return len(WAITING) + is_in(module, UNIT) + 2 * is_in(module, COMPUTING), 0
