"""Which limits of a manifest apply to a request, what is left of them, and their state over changes and restarts."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.dialects.rate_limits import anthropic_headers, openai_headers
from mullama.manifest.spec import Manifest, Moved
from mullama.runtime.rates.book import RateBook


def manifest(
    ci: dict[str, Any] | None = None, model: dict[str, Any] | None = None, *, names: tuple[str, ...] = ("ci", "ops")
) -> Manifest:
    """A manifest with a limited key `ci`, further keys, and a model `a` with limits beside a model `b`."""
    keys: dict[str, Any] = {name: {"secret": {"from_env": "K"}} for name in names}
    if "ci" in keys:
        keys["ci"] |= ci or {}
    models = {"a": {"from": "builtin:tiny", "limits": model or {}}, "b": {"from": "builtin:tiny"}}
    return Manifest.model_validate({"mullama": "v1", "auth": {"keys": keys}, "models": models})


class Book:
    """A book with a clock and a manifest that a test sets."""

    def __init__(self, live: Manifest) -> None:
        self.live, self.now, self.wall = live, 1000.0, 1e9
        self.refused: dict[str, int] = {}
        self.book = RateBook(lambda: self.live, lambda: self.now, lambda: self.wall, self.refused)

    def ask(self, key: str | None = "ci", model: str = "a") -> float:
        """Return the seconds after which a refused client may ask again; 0 for an accepted request."""
        admission = self.book.admit(key, model)
        return admission.refusal.retry_after if admission is not None and admission.refusal is not None else 0.0

    def after_restart(self, seconds: float) -> Book:
        again = Book(self.live)
        again.wall = self.wall + seconds
        again.book.restore(self.book.save())
        return again


RATE = {"rate": {"requests": "2/m"}}


@pytest.mark.parametrize(
    ("live", "calls"),
    [
        (manifest(), [("ci", "a", True)] * 5),
        (manifest(RATE), [("ci", "a", True), ("ci", "b", True), ("ci", "a", False), ("ops", "a", True)]),
        (manifest(None, RATE), [("ci", "a", True), ("ops", "a", True), (None, "a", False), ("ci", "b", True)]),
        (
            manifest(None, {"rate_per_key": {"requests": "1/m"}}),
            [("ci", "a", True), ("ci", "a", False), ("ops", "a", True), ("ci", "b", True), (None, "a", True)],
        ),
        (manifest({"quota": {"requests": "1/d"}, **RATE}), [("ci", "a", True), ("ci", "a", False)]),
        # A refused request takes nothing of the limits that it passed.
        (manifest(RATE, {"rate": {"requests": "1/m"}}), [("ci", "a", True), ("ci", "a", False), ("ci", "b", True)]),
    ],
)
def test_the_limits_of_the_key_and_of_the_model_apply_together(
    live: Manifest, calls: list[tuple[str | None, str, bool]]
) -> None:
    book = Book(live)
    assert [(key, model, book.ask(key, model) == 0) for key, model, _ in calls] == calls


def test_the_refusal_names_the_limit_and_the_time() -> None:
    book = Book(manifest(RATE))
    assert (book.ask(), book.ask()) == (0, 0)
    admission = book.book.admit("ci", "a")
    assert admission is not None
    assert str(admission.refusal) == (
        "the rate of the key 'ci' is used up: 2 requests per minute "
        "(send the request again in 30 s; auth.keys.ci.rate.requests in the manifest is the limit)"
    )
    assert book.refused == {"auth.keys.ci.rate.requests": 1}
    book.now += 30
    assert book.ask() == 0


def test_the_refusal_of_a_rate_per_key_names_the_field_of_the_manifest() -> None:
    book = Book(manifest({}, {"rate_per_key": {"requests": "1/m"}}))
    assert book.ask() == 0
    admission = book.book.admit("ci", "a")
    assert admission is not None
    assert "models.a.limits.rate_per_key.requests in the manifest" in str(admission.refusal)
    assert book.refused == {"models.a.limits.rate_per_key.ci.requests": 1}


def test_tokens_are_counted_when_a_request_ends_and_their_debt_is_waited_for() -> None:
    book = Book(manifest({"rate": {"tokens": "600/m"}}))
    assert book.ask() == 0
    book.book.charge("ci", "a", 1200)
    assert book.ask() == pytest.approx(60.1)
    assert book.ask("ops") == 0
    book.now += 61
    assert book.ask() == 0


def test_a_change_of_the_manifest_is_live_and_keeps_the_used_share() -> None:
    book = Book(manifest(RATE))
    assert book.ask() == book.ask() == 0
    book.live = manifest({"rate": {"requests": "4/m"}})
    assert book.ask() == pytest.approx(15)
    book.live = manifest({})
    assert book.ask() == 0
    book.live = manifest(RATE, names=("ops",))
    assert book.ask("ops") == 0


@pytest.mark.parametrize(("seconds", "wait"), [(0.0, 30.0), (15.0, 15.0), (30.0, 0.0), (1e9, 0.0), (-1e9, 30.0)])
def test_a_restart_grants_nothing_anew(seconds: float, wait: float) -> None:
    """A clock that was set back while the server was down adds nothing, and locks nobody out."""
    book = Book(manifest(RATE))
    assert book.ask() == book.ask() == 0
    again = book.after_restart(seconds)
    assert again.ask() == pytest.approx(wait)
    assert again.after_restart(0).ask() == pytest.approx(30 if wait == 0 and seconds < 1e6 else wait)


@pytest.mark.parametrize("restarts", [1, 2])
def test_the_time_from_a_restart_to_the_first_request_counts(restarts: int) -> None:
    book = Book(manifest(RATE))
    assert book.ask() == book.ask() == 0
    for _ in range(restarts):
        book = book.after_restart(5.0)
        book.now += 5.0
    assert book.ask() == pytest.approx(30.0 - 10.0 * restarts)


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"format": "mullama.rates/1"},
        {"format": "mullama.rates/1", "at": "x", "levels": {}},
        {"format": "mullama.rates/1", "at": 0, "levels": [1]},
        {"format": "mullama.rates/1", "at": 0, "levels": {"auth.keys.ci.rate.requests": {"rate": "x", "level": 1}}},
        {"format": "mullama.rates/1", "at": 0, "levels": {"auth.keys.ci.rate.requests": {"rate": "2/m"}}},
        {
            "format": "mullama.rates/1",
            "at": 0,
            "levels": {"auth.keys.ci.rate.requests": {"rate": "2/m", "level": float("nan")}},
        },
    ],
)
def test_levels_that_cannot_be_read_count_as_full(saved: dict[str, Any]) -> None:
    book = Book(manifest(RATE))
    book.book.restore(saved)
    assert book.ask() == book.ask() == 0
    assert book.ask() > 0


def test_status_lists_every_limit() -> None:
    book = Book(manifest(RATE, {"rate": {"tokens": "1k/h"}}))
    assert [book.ask() for _ in range(3)] == [0, 0, pytest.approx(30)]
    book.book.charge("ci", "a", 300)
    assert book.book.tree() == [
        {
            "limit": "auth.keys.ci.rate.requests", "unit": "requests", "rate": "2/m", "remaining": 0, "full_in": 60.0,
            "refused": 1,
        },
        {
            "limit": "models.a.limits.rate.tokens", "unit": "tokens", "rate": "1k/h", "remaining": 700,
            "full_in": 1080.0, "refused": 0,
        },
    ]  # fmt: skip


def test_a_week_of_a_daily_quota() -> None:
    """A client that asks every second gets the burst of the first day, and then one day's quota per day."""
    book = Book(manifest({"quota": {"requests": "100/d"}}))
    accepted = 0
    for _ in range(7 * 24 * 60):
        accepted += book.ask() == 0
        book.now += 60
    assert 100 + 7 * 100 - 2 <= accepted <= 100 + 7 * 100


def test_the_headers_show_the_limit_that_is_nearest_to_its_end() -> None:
    book = Book(manifest({"rate": {"requests": "10/m", "tokens": "1k/h"}, "quota": {"requests": "5/d"}}))
    book.ask()
    admission = book.book.admit("ci", "a")
    assert admission is not None
    assert openai_headers(admission.report, 0.0) == {
        "x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "9h36m0s", "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "1000", "x-ratelimit-reset-tokens": "0ms",
    }  # fmt: skip
    assert anthropic_headers(admission.report, 0.0) == {
        "anthropic-ratelimit-requests-limit": "5", "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "1970-01-01T09:36:00Z", "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "1000", "anthropic-ratelimit-tokens-reset": "1970-01-01T00:00:00Z",
    }  # fmt: skip


def renamed(live: Manifest, *moves: tuple[str, str, str], key: str = "build", model: str = "c") -> Manifest:
    """The manifest with the key `ci` and the model `a` under new names."""
    keys = {key if name == "ci" else name: entry for name, entry in live.auth.keys.items()}
    models = {model if name == "a" else name: entry for name, entry in live.models.items()}
    moved = tuple(Moved.model_validate({"kind": kind, "from": old, "to": new}) for kind, old, new in moves)
    auth = live.auth.model_copy(update={"keys": keys})
    return live.model_copy(update={"auth": auth, "models": models, "moved": moved})


MOVES = (("key", "ci", "mid"), ("key", "mid", "build"), ("model", "a", "c"))


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "live", [manifest(RATE), manifest(None, RATE), manifest(None, {"rate_per_key": {"requests": "2/m"}})]
)
def test_a_renamed_key_or_model_keeps_what_is_left(live: Manifest, restart: bool) -> None:
    book = Book(live)
    assert [book.ask() for _ in range(2)] == [0.0, 0.0]
    book = book.after_restart(0.0) if restart else book
    book.live = renamed(live, *MOVES)

    assert book.ask("build", "c") > 0

    other = Book(live)
    assert [other.ask() for _ in range(2)] == [0.0, 0.0]
    other.live = renamed(live)
    assert other.ask("build", "c") == 0.0, "without an entry in moved it is a new name"
