"""Large work is done in a thread, small work at once."""

from __future__ import annotations

import threading

import pytest

from mullama.offload import LARGE, compute

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("size", "apart"), [(0, False), (LARGE - 1, False), (LARGE, True), (2**40, True)])
async def test_the_size_decides_where_the_work_is_done(size: int, apart: bool) -> None:
    assert (await compute(size, threading.get_ident) != threading.get_ident()) is apart


async def test_the_result_and_the_error_of_the_work_are_passed_on() -> None:
    assert await compute(LARGE, max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        await compute(LARGE, divmod, 1, 0)
