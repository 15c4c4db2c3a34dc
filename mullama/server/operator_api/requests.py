"""Reads the bodies and the queries of the operator API, field by field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeGuard, get_args, get_type_hints

from mullama.codec import from_tree
from mullama.errors import Invalid
from mullama.names import suggest
from mullama.plan.quant_advice import Profile
from mullama.runtime.base import ApplyOptions, LeaseRequest, MetricsQuery, Origin
from mullama.runtime.fleet import RolloutRecord
from mullama.server.log_book import LEVELS, MOST_LINES, LogFilter
from mullama.store.usage import SECONDS, SUBJECTS, UsageQuery
from mullama.struct import field_names
from mullama.units import parse_duration

LONGEST_LEASE = 3600
"""Seconds. A controller that ended blocks the others for the rest of its lease."""
TRIGGERS = tuple(name for name in get_args(get_type_hints(ApplyOptions)["trigger"]) if name not in ("retry", "drift"))
"""The triggers that a client may name; the others are the server's own."""
_AUTHOR_LENGTH = 200
"""Most characters of an author: each kept revision has one, and `history` prints it."""
_LATEST = 253_402_300_800.0
"""The beginning of the year 10000 in Unix seconds; sums have integers of 64 bits."""
_MOST_WORDS = 200  # characters of a search


def refuse_unknown(tree: Mapping[str, Any], allowed: Collection[str], where: str) -> None:
    """Raise for the first key that is not allowed: a misspelt option must not be ignored."""
    for key in tree:
        if key not in allowed:
            close = suggest(key, allowed)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(allowed)}"
            raise Invalid(f"{key[:80]!r} is not a field of {where}", hint=hint, field=key)


def read_manifest(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the manifest of a body."""
    return _mapping(body.get("manifest"), "manifest")


def read_text(body: Mapping[str, Any]) -> tuple[str, tuple[str, ...] | None]:
    """Return the text of a manifest, and the profiles; None for those of the server."""
    text, profiles = body.get("text"), body.get("profiles")
    if not isinstance(text, str):
        raise Invalid("text must be the text of a manifest", field="text")
    if profiles is None:
        return text, None
    if not isinstance(profiles, list) or not all(isinstance(profile, str) for profile in profiles):
        raise Invalid("profiles must be a list of strings", field="profiles")
    return text, tuple(profiles)


def read_digest(body: Mapping[str, Any]) -> str:
    """Return the digest of the text that a save replaces."""
    digest = body.get("digest")
    if not isinstance(digest, str):
        raise Invalid("digest must be that of the text that was read", field="digest")
    return digest


def read_options(tree: Any) -> ApplyOptions:
    """Return the `ApplyOptions` of their JSON form. The default of `trigger` is "api"."""
    given = {} if tree is None else _mapping(tree, "options")
    refuse_unknown(given, field_names(ApplyOptions), "options")
    for name, value in given.items():
        _check_option(name, value)
    return ApplyOptions(**{"trigger": "api", **given, "targets": tuple(given.get("targets", ()))})


def _check_option(name: str, value: Any) -> None:
    match name:
        case "expect":
            fits = value is None or isinstance(value, str)
        case "by":
            fits = _is_author(value)
        case "fence":
            fits = value is None or _is_fence(value)
        case "targets":
            fits = isinstance(value, list) and all(isinstance(name, str) for name in value)
        case "trigger":
            fits = value in TRIGGERS
        case _:
            fits = isinstance(value, bool)
    if not fits:
        raise Invalid(f"options.{name} cannot be {value!r:.80}", field=f"options.{name}")


def read_origin(tree: Any) -> Origin:
    """Return the `Origin` of its JSON form."""
    given = {} if tree is None else _mapping(tree, "origin")
    refuse_unknown(given, ("path", "profiles", "digest", "fleet"), "origin")
    path, digest, profiles = given.get("path"), given.get("digest", ""), given.get("profiles", ())
    if path is not None and not isinstance(path, str):
        raise Invalid("origin.path must be a string or null", field="origin.path")
    if not isinstance(digest, str):
        raise Invalid("origin.digest must be a string", field="origin.digest")
    if not isinstance(profiles, list | tuple) or not all(isinstance(p, str) for p in profiles):
        raise Invalid("origin.profiles must be a list of strings", field="origin.profiles")
    return Origin(path=path, profiles=tuple(profiles), digest=digest, fleet=read_step_of_fleet(given))


def read_usage(query: Mapping[str, str], now: float) -> UsageQuery:
    """Return what a query asks for: `since` a duration before now or a Unix time, `by` names with commas, `span`."""
    refuse_unknown(query, ("since", "by", "span"), "the query")
    since, by, span = _read_since(query.get("since", "7d"), now), query.get("by", "model"), query.get("span")
    wanted = [name.strip() for name in by.split(",") if name.strip()]
    subjects = [name for name in SUBJECTS if name in wanted]
    if len(subjects) != len(wanted):
        raise Invalid(f"by cannot be {by[:80]!r}", field="by", hint="key, route, model, or several with commas")
    spans = {name: name for name in SECONDS}
    if span is not None and span not in spans:
        raise Invalid(f"span cannot be {span[:80]!r}", field="span", hint="minute, hour or day")
    return UsageQuery(since=since, by=subjects, span=None if span is None else spans[span])


def read_metrics_query(query: Mapping[str, str], now: float) -> MetricsQuery:
    """Return what a query of the metrics asks for: `since` as of usage, `step` as a duration, `model`."""
    refuse_unknown(query, ("since", "step", "model"), "the query")
    step = query.get("step")
    try:
        seconds = 0.0 if step is None else parse_duration(step)
    except ValueError as error:
        raise Invalid(f"step: {error}", field="step", hint="5s, 15s or 1m") from error
    return MetricsQuery(since=_read_since(query.get("since", "1h"), now), step=seconds, model=query.get("model"))


def _read_since(text: str, now: float) -> float:
    """Return a Unix time in seconds from itself, or from a duration before now."""
    try:
        begins = float(text) if text.replace(".", "", 1).isdigit() else now - parse_duration(text)
    except ValueError as error:
        raise Invalid(f"since: {error}", field="since", hint="7d, 12h, or Unix seconds") from error
    return min(max(0.0, begins), _LATEST)


def read_log_query(query: Mapping[str, str], now: float) -> tuple[LogFilter, int]:
    """Return what a reader of the log asks for, and the most lines: 200 without `tail`."""
    refuse_unknown(query, ("tail", "model", "part", "level", "text", "since"), "the query")
    tail, level = query.get("tail", "200"), query.get("level", "debug")
    if not (tail.isascii() and tail.isdecimal()):
        raise Invalid("tail must be a number of lines", field="tail")
    if level not in LEVELS:
        raise Invalid(f"level cannot be {level[:80]!r}", field="level", hint=", ".join(LEVELS))
    wanted = LogFilter(
        model=query.get("model", ""),
        part=query.get("part", ""),
        level=LEVELS[level],
        text=query.get("text", ""),
        since=_read_since(query.get("since", "0"), now),
    )
    return wanted, min(int(tail[:9]), MOST_LINES)


def read_search(query: Mapping[str, str]) -> tuple[str, int, bool]:
    """Return the words of a search, the most results, and whether repositories without GGUF files are wanted."""
    refuse_unknown(query, ("query", "limit", "all"), "the query")
    words = query.get("query", "").strip()
    if not words or len(words) > _MOST_WORDS:
        raise Invalid("query must be the words to search for", field="query", hint=f"at most {_MOST_WORDS} characters")
    limit = _read_count(query, "limit", 20, 100)
    return words, limit, query.get("all", "0") not in ("0", "false")


def read_advice_query(query: Mapping[str, str]) -> tuple[str, int, Profile]:
    """Return the repository, the tokens of context, and the profile for which its files are rated."""
    refuse_unknown(query, ("source", "context_size", "profile"), "the query")
    source, profile = query.get("source", ""), query.get("profile", "balanced")
    if not source:
        raise Invalid("source must be a repository", field="source", hint="for example org/repo, or a short name")
    profiles: dict[str, Profile] = {name: name for name in get_args(Profile)}
    if profile not in profiles:
        raise Invalid(f"profile cannot be {profile[:80]!r}", field="profile", hint=", ".join(profiles))
    return source, _read_count(query, "context_size", 8192, 2**24), profiles[profile]


def read_entry(body: Mapping[str, Any]) -> tuple[str, tuple[str, ...], Any]:
    """Return the text of a manifest, the keys of a new entry, and its value."""
    (text, _profiles), path = read_text(body), body.get("path")
    if not isinstance(path, list) or not path or not all(isinstance(name, str) and name for name in path):
        raise Invalid("path must be the keys of the entry", field="path", hint='for example ["models", "small"]')
    return text, tuple(path), body.get("value")


def _read_count(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:20]) <= most):
        raise Invalid(f"{name} cannot be {text[:80]!r}", field=name, hint=f"1 to {most}")
    return int(text)


def read_filter(query: Mapping[str, str]) -> Mapping[str, str]:
    """Return the values that captured requests must have."""
    refuse_unknown(query, ("model", "key", "route", "result"), "the query")
    if query.get("result", "ok") not in ("ok", "error", "cancelled"):
        raise Invalid(f"result cannot be {query['result'][:80]!r}", field="result", hint="ok, error or cancelled")
    return query


def read_revisions(query: Mapping[str, str]) -> tuple[int, int]:
    """Return the numbers of the two revisions that a query compares."""
    refuse_unknown(query, ("before", "after"), "the query")
    for name in ("before", "after"):
        text = query.get(name, "")
        if not (text.isascii() and text.isdecimal()):
            raise Invalid(f"{name} must be the number of a revision", field=name)
    return int(query["before"]), int(query["after"])


def read_lease(body: Mapping[str, Any]) -> LeaseRequest:
    """Return the request for the lease of a fleet."""
    seconds, fence, fleet = body.get("seconds"), body.get("fence"), body.get("fleet")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_LEASE:
        raise Invalid(f"seconds must be a number up to {LONGEST_LEASE}", field="seconds")
    if not _is_fence(fence):
        raise Invalid("fence must be a number above that of the last lease", field="fence")
    if not _is_author(fleet):
        raise Invalid("fleet must be the name of a fleet", field="fleet")
    return LeaseRequest(holder=read_holder(body), fleet=str(fleet), seconds=float(seconds), fence=int(fence))


ROLLOUT_FIELDS = set(field_names(RolloutRecord))


def read_rollout(body: Mapping[str, Any]) -> RolloutRecord:
    """Return the record of a rollout. Raises `Invalid` with the field."""
    return from_tree(RolloutRecord, body, "rollout")


def read_holder(body: Mapping[str, Any]) -> str:
    """Return the holder of a lease."""
    holder = body.get("holder")
    if not holder or not _is_author(holder):
        raise Invalid(f"holder must be the name of a controller of at most {_AUTHOR_LENGTH} characters", field="holder")
    return str(holder)


def read_step_of_fleet(body: Mapping[str, Any]) -> str:
    """Return `fleet` of an origin or an undo; "" without one."""
    fleet = body.get("fleet", "")
    if not _is_author(fleet):
        raise Invalid("fleet must be the step of a fleet's apply, NAME/FENCE.STEP", field="fleet")
    return str(fleet)


def read_fence(body: Mapping[str, Any]) -> int | None:
    """Return `fence` of an undo."""
    fence = body.get("fence")
    if fence is not None and not _is_fence(fence):
        raise Invalid("fence must be that of the lease of a fleet, or null", field="fence")
    return fence


def _is_fence(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


def read_author(body: Mapping[str, Any], key: str | None) -> str:
    """Return `by` of an undo: the author for the history; without it the name of the API key."""
    by = body.get("by", key or "")
    if not _is_author(by):
        raise Invalid(f"by must be a string of at most {_AUTHOR_LENGTH} printable characters", field="by")
    return str(by)


def _is_author(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _AUTHOR_LENGTH and value.isprintable()


def read_generation(body: Mapping[str, Any]) -> int | None:
    """Return `to` of an undo: the number of a revision, or None for the one before the current."""
    to = body.get("to")
    if to is not None and (not isinstance(to, int) or isinstance(to, bool)):
        raise Invalid("to must be the number of a revision or null", field="to")
    return to


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{name} must be a JSON object", field=name)
    return value
