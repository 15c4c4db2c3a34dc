"""The errors of mullama, as one tree. Each has a kind, a message that names the thing, and a hint.

Messages and hints show no secret inside an address, see `masked`.

Errors have no HTTP status and no exit code: tables in `dialects` and `cli` map the kind to these.

    MullamaError
    ├── Invalid              the input is wrong; a retry does not help
    │   ├── ManifestError    one or more problems in a manifest, each with its place
    │   ├── BadWeights       a file that must not reach native code
    │   ├── ContextOverflow  the prompt is longer than the context
    │   └── Unsupported      a feature that mullama, or this model, does not have
    ├── NotFound             no such model, file, route or revision
    ├── Denied               a key or permission is missing
    ├── Conflict             another process holds or changed the thing (lock, stale plan, owned name)
    ├── Refused              a guard, a protection or a preflight check failed; nothing was changed
    ├── Busy                 a queue is full or a rate limit is reached; a later retry helps
    ├── TooLarge             larger than a limit
    ├── TransferFailed       a download failed or did not match its digest
    ├── TimedOut             a deadline passed
    ├── Unavailable          the server, hub or model cannot be reached now
    │   ├── ModelUnavailable the files of a model are missing or cannot be used; the other models serve
    │   ├── PeerLost         another server that a route leads to cannot be reached, or refuses the key
    │   ├── ToolsUnavailable a server of tools cannot be reached, or answers wrongly
    │   └── EngineFailed     the process of a model died, hung or could not load it
    │       └── ProbeFailed  the model gave no answer to its probe, or a wrong one
    └── Internal             a bug in mullama
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mullama.problems import Problem

_USER = re.compile(r"://[^\s/?#'\"<>]*@")
_QUERY = re.compile(r"(://[^\s?#'\"<>]*\?)([^\s#'\"<>]*)")
_VALUE = re.compile(r"(?<==)(?!from_env:)[^&;]+")


def masked(text: str) -> str:
    """Return a text in which the addresses show no secret: without user names, passwords and values of queries.

    A reference `from_env:NAME` is no secret and stays.
    """
    if "://" not in text:
        return text
    return _QUERY.sub(lambda found: found[1] + _masked_query(found[2]), _USER.sub("://***@", text))


def _masked_query(query: str) -> str:
    return "&".join(_VALUE.sub("***", part) if "=" in part else "***" for part in query.split("&"))


def masked_tree(value: Any) -> Any:
    """Return JSON values with `masked` texts."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list | tuple):
        return [masked_tree(item) for item in value]
    if isinstance(value, Mapping):
        return {key: masked_tree(item) for key, item in value.items()}
    return value


class Kind(StrEnum):
    """The kinds of errors. Every table of HTTP statuses and exit codes has all of them."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    DENIED = "denied"
    CONFLICT = "conflict"
    REFUSED = "refused"
    BUSY = "busy"
    TOO_LARGE = "too_large"
    TRANSFER = "transfer"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class MullamaError(Exception):
    """The base class of all errors that mullama raises on purpose."""

    kind: ClassVar[Kind] = Kind.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message, self.hint = masked(message), masked(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Invalid(MullamaError):
    """The input is wrong. `field` is the dotted path of the wrong part, if known."""

    kind = Kind.INVALID

    def __init__(self, message: str, *, hint: str = "", field: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class ManifestError(Invalid):
    """All problems of one manifest, or of another `document` that is read like one."""

    def __init__(self, problems: tuple[Problem, ...], *, document: str = "the manifest") -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems
        self.document = document


class BadWeights(Invalid):
    """A GGUF file that is truncated, damaged or of a kind that llama.cpp cannot load."""


class ContextOverflow(Invalid):
    """The prompt has more tokens than a request may use."""

    def __init__(self, prompt_tokens: int, context_size: int, *, index: int | None = None, place: str = "") -> None:
        """index: the number of the input among several. place: its field in the request."""
        super().__init__(
            f"{place or 'the prompt'} has {prompt_tokens} tokens, the context {context_size}",
            hint="shorten the prompt, or raise context.size of the model in the manifest",
            field=place or None,
        )
        self.index = index
        self.prompt_tokens = prompt_tokens
        self.context_size = context_size


class Unsupported(Invalid):
    """The model, or mullama, does not have a requested feature; the message gives the reason."""


class NotFound(MullamaError):
    """`name` was not found; `near` lists similar names."""

    kind = Kind.NOT_FOUND

    def __init__(self, message: str, *, hint: str = "", name: str = "", near: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint or (f"did you mean {' or '.join(near)}?" if near else ""))
        self.name = name
        self.near = near


class Denied(MullamaError):
    """`authenticated` is False for a wrong or missing key, True for a key without the permission."""

    kind = Kind.DENIED

    def __init__(self, message: str, *, hint: str = "", authenticated: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.authenticated = authenticated


class Conflict(MullamaError):
    kind = Kind.CONFLICT


class Refused(MullamaError):
    kind = Kind.REFUSED


class Busy(MullamaError):
    """`retry_after` is in seconds; `limited` is True for a rate limit, False for a full queue."""

    kind = Kind.BUSY

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 1.0, limited: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.limited = limited


class TooLarge(MullamaError):
    kind = Kind.TOO_LARGE


class TransferFailed(MullamaError):
    kind = Kind.TRANSFER


class TimedOut(MullamaError):
    kind = Kind.TIMEOUT


class Unavailable(MullamaError):
    kind = Kind.UNAVAILABLE

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ModelUnavailable(Unavailable):
    """A declared model cannot be served because of `cause`; `pending` while its files are fetched."""

    def __init__(self, cause: MullamaError, *, pending: bool = False) -> None:
        super().__init__(cause.message, hint=cause.hint, retry_after=5.0)
        self.cause = cause
        self.pending = pending


class PeerLost(Unavailable):
    """A peer cannot be reached, or refuses the key of this server, whatever the model."""


class ToolsUnavailable(Unavailable):
    """A server of tools cannot be reached, or does not answer as its protocol demands."""


class EngineFailed(Unavailable):
    """The worker process died, hung or could not load a model; `report` is the end of its output."""

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None, report: str = "") -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.report = report


class ProbeFailed(EngineFailed):
    """A loaded model gave no answer to its probe, or one that `probe.expect` does not match."""


class Internal(MullamaError):
    kind = Kind.INTERNAL
