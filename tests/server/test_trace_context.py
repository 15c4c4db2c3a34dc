"""W3C Trace Context: the headers that are accepted, and those that are passed on."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.trace_context import TraceContext, begin, continued, current

TRACE, PARENT, OWN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


def read(traceparent: str, tracestate: str = "") -> TraceContext | None:
    return continued({"traceparent": traceparent, "tracestate": tracestate}, OWN)


def test_the_span_of_the_request_takes_the_place_of_the_clients() -> None:
    found = read(GOOD, "congo=t61rcWkgMzE")

    assert found == TraceContext(trace_id=TRACE, span_id=OWN, parent_id=PARENT, flags=1, state="congo=t61rcWkgMzE")
    assert found.sampled
    assert found.headers == {"traceparent": f"00-{TRACE}-{OWN}-01", "tracestate": "congo=t61rcWkgMzE"}


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-{PARENT}-00", 0),
        (f"00-{TRACE}-{PARENT}-03", 3),  # random-trace-id of level 2
        (f"00-{TRACE}-{PARENT}-fd", 1),  # unknown flags are not passed on
        (f"cc-{TRACE}-{PARENT}-01", 1),  # a later version
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", 1),
        (f"  {GOOD}\t", 1),
    ],
)
def test_flags_and_later_versions(traceparent: str, flags: int) -> None:
    found = read(traceparent)
    assert found is not None
    assert found.headers == {"traceparent": f"00-{TRACE}-{OWN}-{flags:02x}"}


@pytest.mark.parametrize(
    "traceparent",
    [
        "", "00", GOOD + "-more", GOOD + "-", f"{GOOD}, {GOOD}", GOOD.upper(), "ff" + GOOD[2:], GOOD[:-1], GOOD + "1",
        GOOD.replace(TRACE, "0" * 32), GOOD.replace(PARENT, "0" * 16), GOOD.replace("-", "_"),
        GOOD.replace("0af", "0ag"),
        f"cc-{TRACE}-{PARENT}-01.x", f"cc-{TRACE}-{PARENT}-01-ü",
    ],
)  # fmt: skip
def test_an_invalid_traceparent_begins_no_trace(traceparent: str) -> None:
    assert read(traceparent, "a=1") is None


@pytest.mark.parametrize(
    ("tracestate", "kept"),
    [
        ("", ""),
        ("rojo=00f067aa0ba902b7 ,\tcongo=t61rcWkgMzE,, ", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("fw529a3039@dt=FfffffGcs*/9", "fw529a3039@dt=FfffffGcs*/9"),
        ("0a=b c;d", "0a=b c;d"),
        ("a=1,b", ""),
        ("a=1,A=2", ""),
        ("a=1,a=2", ""),
        ("a=b=c", ""),
        ("a=", ""),
        ("a=ü", ""),
        (f"{'a' * 257}=1", ""),
        (f"a={'1' * 257}", ""),
        (",".join(f"k{i}=1" for i in range(33)), ""),
        (",".join(f"k{i}=1" for i in range(32)), ",".join(f"k{i}=1" for i in range(32))),
        (f"long={'x' * 200},{','.join(f'k{i}=' + 'y' * 90 for i in range(4))}",
         ",".join(f"k{i}=" + "y" * 90 for i in range(4))),
        (",".join(f"k{i}=" + "y" * 97 for i in range(8)), ",".join(f"k{i}=" + "y" * 97 for i in range(5))),
    ],
)  # fmt: skip
def test_the_members_of_a_tracestate(tracestate: str, kept: str) -> None:
    found = read(GOOD, tracestate)
    assert found is not None
    assert found.state == kept


@given(st.text(max_size=600), st.text(max_size=600))
def test_headers_passed_on_are_accepted_again_whatever_a_client_sends(traceparent: str, tracestate: str) -> None:
    for found in (read(traceparent, tracestate), read(GOOD, tracestate)):
        if found is not None:
            again = continued(found.headers, PARENT)
            assert again is not None
            assert (again.trace_id, again.parent_id, again.state) == (found.trace_id, OWN, found.state)
            assert len(again.state) <= 512


def test_a_task_that_outlives_its_request_has_no_trace() -> None:
    async def scenario() -> list[str | None]:
        found = read(GOOD)
        assert found is not None
        ended, seen = asyncio.Event(), []

        async def work() -> None:
            seen.append(current())
            await ended.wait()
            seen.append(current())

        async def request() -> asyncio.Task[None]:
            trace = begin(found)
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            trace.end()
            return task

        task = await asyncio.create_task(request())
        ended.set()
        await task
        return [one.trace_id if one else None for one in (*seen, current())]

    assert asyncio.run(scenario()) == [TRACE, None, None]
