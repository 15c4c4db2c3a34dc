"""Exit codes of the command line, and errors as lines on stderr. No other module has exit numbers."""

from __future__ import annotations

import errno
from typing import assert_never

from mullama.errors import Denied, EngineFailed, Internal, Invalid, Kind, ManifestError, MullamaError, NotFound
from mullama.units import counted, printable

DONE = 0
ERROR = 1
DIFFERS = 2
NOT_FOUND = 3
INVALID = 4
TRANSFER = 5
TIMEOUT = 6
DENIED = 7
PARTLY = 8
REFUSED = 9
CONFLICT = 10
NO_CONNECTION = 11
INTERRUPTED = 130

MEANINGS = {
    DONE: "done, or nothing to do",
    ERROR: "any other error",
    NOT_FOUND: "no such model, file, route or revision",
    INVALID: "invalid manifest or command line",
    TRANSFER: "a download failed or does not match its digest",
    TIMEOUT: "a time limit was exceeded",
    DENIED: "a key or permission is missing",
    PARTLY: "done in part: a partial apply or import, a model that kept its old revision, a degraded server",
    REFUSED: "refused: a protected model, a missing confirmation or a failed check; nothing was changed",
    CONFLICT: "another process holds the lock, the plan is stale, or a newer manifest replaced this one",
    NO_CONNECTION: "no server answers, or a source of weights cannot be reached",
    INTERRUPTED: "interrupted from the keyboard",
}
"""For the reference page."""

DIFF_MEANINGS = {
    DONE: "no changes",
    DIFFERS: "there are changes",
    ERROR: "any error, including an invalid command line",
    REFUSED: "the plan breaks a rule of --policy",
}


def exit_code(error: MullamaError) -> int:
    """Return the code of an error: that of its kind, except that a failed engine is not `NO_CONNECTION`."""
    return ERROR if isinstance(error, EngineFailed) else kind_code(error.kind)


def outcome_code(outcome: str) -> int:
    """Return the code for the outcome of an apply: `applied`, `partly_applied`, or the kind of its error."""
    match outcome:
        case "applied":
            return DONE
        case "partly_applied":
            return PARTLY
        case _:
            return kind_code(Kind(outcome)) if outcome in set(Kind) else ERROR


def kind_code(kind: Kind) -> int:
    """Return the code for a kind of error."""
    match kind:
        case Kind.INVALID | Kind.TOO_LARGE:
            return INVALID
        case Kind.NOT_FOUND:
            return NOT_FOUND
        case Kind.DENIED:
            return DENIED
        case Kind.CONFLICT:
            return CONFLICT
        case Kind.REFUSED:
            return REFUSED
        case Kind.TRANSFER:
            return TRANSFER
        case Kind.TIMEOUT:
            return TIMEOUT
        case Kind.UNAVAILABLE:
            return NO_CONNECTION
        case Kind.BUSY | Kind.INTERNAL:
            return ERROR
        case _ as never:
            assert_never(never)


def explain(error: MullamaError) -> tuple[str, ...]:
    """Return the lines of an error: each problem of a manifest with its location, or message and hint."""
    match error:
        case ManifestError(problems=problems, document=document):
            count = counted(len(problems), "problem")
            return (*(_safe(str(problem)) for problem in problems), f"error: {count} in {document}")
        case EngineFailed(report=report) if report:
            tail = tuple(f"  | {_safe(line)}" for line in report.splitlines()[-10:])
            return (*_message(error), *tail)
        case _:
            return _message(error)


def as_mullama_error(raised: Exception) -> MullamaError:
    """Translate an exception. An unexpected one becomes `Internal`."""
    match raised:
        case MullamaError():
            return raised
        case UnicodeEncodeError(object=text, start=start, end=end) if "\ud800" <= text[start:end] <= "\udfff":
            return Invalid(
                f"{text[max(0, start - 30) : end + 30]!r} is not UTF-8",
                hint="write texts in UTF-8, and rename a file whose name is not (or use a link)",
            )
        case PermissionError(filename=path, strerror=why):
            return Denied(f"{path}: {why}", authenticated=True)
        case FileNotFoundError(filename=path, strerror=why) if path:
            return NotFound(f"{path}: {why}", name=str(path))
        case OSError(errno=errno.EROFS, filename=path, strerror=why) if path:
            return Denied(f"{path}: {why}", authenticated=True)
        case OSError(filename=path, strerror=why) if why:
            hint = "free some space and try again" if raised.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            return Internal(f"{path}: {why}" if path else why, hint=hint)
        case _:
            text = f"{type(raised).__name__}: {raised}"
            return Internal(f"a bug in mullama: {text}", hint="MULLAMA_DEBUG=1 shows the traceback")


def _message(error: MullamaError) -> tuple[str, ...]:
    first, *more = error.message.splitlines() or [error.kind.value]
    unknown = error.kind is Kind.NOT_FOUND and first.startswith("model '")
    text = error.hint or ("mullama list shows the models" if unknown else "")
    hint = (f"hint: {_safe(text)}",) if text else ()
    return (f"error: {_safe(first)}", *(f"  {_safe(line)}" for line in more), *hint)


def _safe(text: str) -> str:
    return printable(" ".join(text.splitlines()))
