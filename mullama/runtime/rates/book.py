"""The rate limits of a manifest: which apply to a request, what is left of each, and their state over a restart."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mullama.dialects.rate_limits import RateReport, RateWindow
from mullama.errors import Busy
from mullama.manifest.spec import Manifest, RateLimit
from mullama.manifest.spec.readers import moves_of
from mullama.runtime.base import Admission
from mullama.runtime.rates.bucket import Bucket
from mullama.struct import Struct
from mullama.units import parse_rate

_FORMAT = "mullama.rates/1"
_PER = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


class _Limit(Struct, kw_only=True):
    path: str
    """The field of the manifest; of a limit for each key, with the name of the key. Levels are saved under it."""
    subject: str
    field: str
    """The field of the manifest."""
    key: str | None
    """The key that it is for; None for all."""
    model: str | None
    """The model that it is for; None for all."""
    unit: str
    text: str
    bucket: Bucket

    def applies(self, key: str | None, model: str) -> bool:
        return self.key in (None, key) and self.model in (None, model)


class RateBook:
    """Decides whether a request is accepted, and counts its tokens when it ends.

    manifest: returns the live one, whose limits are used from its first request on. clock: seconds for refills, which
    never go back. wall: Unix time, for the time between two processes.
    """

    def __init__(
        self,
        manifest: Callable[[], Manifest],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        refused: dict[str, int] | None = None,
    ) -> None:
        """refused: receives the number of refused requests by the field of the limit."""
        self._live, self._clock, self._wall = manifest, clock, wall
        self._manifest: Manifest | None = None
        self._limits: dict[str, _Limit] = {}
        self._groups: dict[tuple[str | None, str | None], tuple[_Limit, ...]] = {}
        self._restored: Mapping[str, Any] = {}
        self._restored_at = 0.0
        self._refused = {} if refused is None else refused
        self.changed = False
        """True after a change that is not saved."""

    @property
    def active(self) -> bool:
        """True if the manifest has a limit."""
        self._configure()
        return bool(self._limits)

    def admit(self, key: str | None, model: str) -> Admission | None:
        """Decide on a request of a key to a model; an accepted one is counted. None if no limit applies.

        A refused request takes nothing.
        """
        limits = self._applying(key, model)
        if not limits:
            return None
        now = self._clock()
        worst, longest = None, 0.0
        for limit in limits:
            bucket = limit.bucket
            bucket.refill(now)
            if bucket.level < 1.0 and (wait := bucket.wait()) > longest:
                worst, longest = limit, wait
        if worst is not None:
            self._refused[worst.path] = self._refused.get(worst.path, 0) + 1
            return Admission(report=_report(limits), refusal=_refusal(worst, longest))
        self._take(limits, "requests", 1)
        return Admission(report=_report(limits))

    def charge(self, key: str | None, model: str, tokens: int) -> None:
        """Count the tokens of a request that has ended."""
        if tokens and (limits := self._applying(key, model)):
            now = self._clock()
            for limit in limits:
                limit.bucket.refill(now)
            self._take(limits, "tokens", tokens)

    def _take(self, limits: Iterable[_Limit], unit: str, amount: float) -> None:
        for limit in limits:
            if limit.unit == unit:
                limit.bucket.take(amount)
                self.changed = True

    def tree(self) -> list[dict[str, Any]]:
        """Return every limit of the manifest with what is left of it, for `status`."""
        self._configure()
        return [self._row(limit) for limit in self._limits.values()]

    def by_key(self) -> dict[str, list[dict[str, Any]]]:
        """Return the limits of each key by its name, without those of models for all clients."""
        self._configure()
        found: dict[str, list[dict[str, Any]]] = {}
        for limit in self._limits.values():
            if limit.key is not None:
                found.setdefault(limit.key, []).append(self._row(limit))
        return found

    def _row(self, limit: _Limit) -> dict[str, Any]:
        limit.bucket.refill(self._clock())
        window = _window(limit.bucket)
        return {
            "limit": limit.path, "unit": limit.unit, "rate": limit.text, "remaining": window.remaining,
            "full_in": round(window.reset, 3), "refused": self._refused.get(limit.path, 0),
        }  # fmt: skip

    # State over a restart

    def save(self) -> dict[str, Any]:
        """Return the levels as JSON, with the time in Unix seconds."""
        self.changed = False
        now = self._clock()
        for limit in self._limits.values():
            limit.bucket.refill(now)
        levels = {path: {"rate": limit.text, "level": limit.bucket.level} for path, limit in self._limits.items()}
        unused = {path: _refilled(entry, now - self._restored_at) for path, entry in self._restored.items()}
        return {"format": _FORMAT, "at": self._wall(), "levels": {**unused, **levels}}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from saved levels, before the first request; anything else counts as no levels."""
        if saved.get("format") != _FORMAT:
            return
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            passed = max(0.0, self._wall() - saved["at"])
            self._restored = {path: _refilled(entry, passed) for path, entry in saved["levels"].items()}
            self._restored_at = self._clock()

    # The limits of the manifest

    def _applying(self, key: str | None, model: str) -> tuple[_Limit, ...]:
        self._configure()
        if not self._limits:
            return ()
        found = self._groups.get((key, model))
        if found is None:
            found = tuple(limit for limit in self._limits.values() if limit.applies(key, model))
            self._groups[key, model] = found
        return found

    def _configure(self) -> None:
        """Follow a change of the manifest. A limit that stays keeps its used share."""
        manifest = self._live()
        if manifest is self._manifest:
            return
        self._manifest, before, now = manifest, self._limits, self._clock()
        self._limits, self._groups = {}, {}
        for declared in _declared(manifest):
            for unit, text in _units(declared.rates):
                path, (capacity, seconds) = f"{declared.path}.{unit}", parse_rate(text)
                bucket = self._known((path, *(f"{old}.{unit}" for old in declared.former)), before, now)
                if bucket is None:
                    bucket = Bucket(capacity=capacity, seconds=seconds, level=capacity, at=now)
                bucket.resize(capacity, seconds)
                self._limits[path] = _Limit(
                    path=path, field=f"{declared.field or declared.path}.{unit}", subject=declared.subject,
                    key=declared.key, model=declared.model, unit=unit, text=text, bucket=bucket,
                )  # fmt: skip
        if manifest.models:  # not the empty manifest before the first one is applied
            self._restored = {}

    def _known(self, paths: Sequence[str], before: Mapping[str, _Limit], now: float) -> Bucket | None:
        """Return the bucket of the first path that has one: that of the name itself, else of a former name."""
        if live := next((before[path] for path in paths if path in before), None):
            live.bucket.refill(now)
            return live.bucket
        if saved := next((self._restored[path] for path in paths if path in self._restored), None):
            capacity, seconds = parse_rate(saved["rate"])
            bucket = Bucket(capacity=capacity, seconds=seconds, level=saved["level"], at=self._restored_at)
            bucket.refill(now)
            return bucket
        return None


def _refilled(entry: Mapping[str, Any], passed: float) -> dict[str, Any]:
    """Return a saved level after some seconds."""
    capacity, seconds = parse_rate(entry["rate"])
    level = float(entry["level"])
    bucket = Bucket(capacity=capacity, seconds=seconds, level=level if math.isfinite(level) else capacity, at=0.0)
    bucket.refill(passed)
    return {"rate": entry["rate"], "level": bucket.level}


class _Declared(NamedTuple):
    path: str
    subject: str
    rates: RateLimit | None
    key: str | None = None
    model: str | None = None
    field: str = ""
    """The field of the manifest, where the path has more: the name of the key."""
    former: tuple[str, ...] = ()
    """The paths under the former names of the key and the model."""


def _declared(manifest: Manifest) -> Iterator[_Declared]:
    keys = manifest.auth.keys
    key_names, model_names = _names(manifest, "key", keys), _names(manifest, "model", manifest.models)
    for name, key in keys.items():
        for field, rates in (("rate", key.rate), ("quota", key.quota)):
            path, *former = (f"auth.keys.{one}.{field}" for one in key_names[name])
            yield _Declared(path, f"the {field} of the key '{name}'", rates, key=name, former=tuple(former))
    for name, model in manifest.models.items():
        limits = model.limits
        path, *former = (f"models.{one}.limits.rate" for one in model_names[name])
        yield _Declared(path, f"the rate of the model '{name}'", limits.rate, model=name, former=tuple(former))
        for key_name in keys if limits.rate_per_key is not None else ():
            subject = f"the rate of the key '{key_name}' on the model '{name}'"
            field = f"models.{name}.limits.rate_per_key"
            path, *former = (
                f"models.{one}.limits.rate_per_key.{other}"
                for one in model_names[name]
                for other in key_names[key_name]
            )
            yield _Declared(path, subject, limits.rate_per_key, key_name, name, field, tuple(former))


def _names(manifest: Manifest, kind: str, present: Iterable[str]) -> dict[str, list[str]]:
    """Return for each name the name itself and the former names that `moved` has for it."""
    names = {name: [name] for name in present}
    for old, new in moves_of(manifest.moved, kind).items():
        if new in names and old not in names:
            names[new].append(old)
    return names


def _units(rates: RateLimit | None) -> Iterator[tuple[str, str]]:
    for unit, text in (("requests", rates.requests), ("tokens", rates.tokens)) if rates is not None else ():
        if text is not None:
            yield unit, text


def _refusal(limit: _Limit, seconds: float) -> Busy:
    count, per = limit.text.split("/")
    return Busy(
        f"{limit.subject} is used up: {count} {limit.unit} per {_PER[per]}",
        hint=f"send the request again in {math.ceil(seconds)} s; {limit.field} in the manifest is the limit",
        retry_after=seconds,
        limited=True,
    )


def _report(limits: Iterable[_Limit]) -> RateReport:
    """Return the limits with the least left, of requests and of tokens."""
    least: dict[str, Bucket] = {}
    for limit in limits:
        known = least.get(limit.unit)
        if known is None or limit.bucket.level < known.level:
            least[limit.unit] = limit.bucket
    requests, tokens = least.get("requests"), least.get("tokens")
    return RateReport(
        requests=None if requests is None else _window(requests), tokens=None if tokens is None else _window(tokens)
    )


def _window(bucket: Bucket) -> RateWindow:
    return RateWindow(
        limit=int(bucket.capacity),
        remaining=max(0, math.floor(bucket.level)),
        reset=bucket.wait(bucket.capacity),
    )
