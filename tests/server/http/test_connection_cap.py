"""Which connection makes room for a new one."""

from __future__ import annotations

from mullama.server.http.connection_cap import ConnectionCap


def test_up_to_the_bound_nothing_is_closed() -> None:
    cap = ConnectionCap[str](2)
    assert [cap.opened(name) for name in "ab"] == [None, None]
    assert not cap.exceeded


def test_the_connection_that_became_idle_first_is_closed() -> None:
    cap = ConnectionCap[str](2)
    for name in "ab":
        cap.opened(name)
    cap.busy("a")
    cap.idle("a")
    assert [cap.opened(name) for name in "cde"] == ["b", "a", "c"]
    assert not cap.exceeded


def test_a_connection_with_a_request_is_never_closed() -> None:
    cap = ConnectionCap[str](1)
    cap.opened("a")
    cap.busy("a")
    assert cap.opened("b") is None
    assert cap.exceeded
    assert not cap.far_exceeded
    cap.busy("b")
    cap.opened("c")
    assert cap.far_exceeded
    for name in "ac":
        cap.closed(name)
    assert not cap.exceeded
    cap.idle("a")
    cap.idle("b")
    assert cap.opened("d") == "b"
