"""What the terminal says of an error: the exit code of its kind, and the lines on stderr."""

from __future__ import annotations

from typing import assert_never

from mullama.errors import Denied, EngineFailed, Internal, Kind, ManifestError, MullamaError, NotFound
from mullama.units import printable

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

# What each code means, for `--help` and the reference page.
MEANINGS = {
    DONE: "done, or nothing to do",
    ERROR: "an error that has no code of its own",
    NOT_FOUND: "no such model, file, route or revision",
    INVALID: "invalid manifest, or a mistake in the command line",
    TRANSFER: "a download failed or did not match its digest",
    TIMEOUT: "a deadline passed",
    DENIED: "a key or a permission is missing",
    PARTLY: "partly applied, or an old revision was kept",
    REFUSED: "refused by a guard, a protection or a preflight; nothing was changed",
    CONFLICT: "somebody else holds the lock, or the plan is stale",
    NO_CONNECTION: "no server answers, or a source of weights cannot be reached",
    INTERRUPTED: "interrupted from the keyboard",
}
DIFF_MEANINGS = {
    DONE: "nothing to do",
    DIFFERS: "something to do",
    ERROR: "could not tell: any error, a mistake in the command line too",
}


def exit_code(error: MullamaError) -> int:
    """The code of the error's kind. An engine that failed did answer, so it is not `NO_CONNECTION`."""
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
    """The error in lines: every problem of a manifest with its place, or the message and its hint."""
    match error:
        case ManifestError(problems=problems):
            count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
            return (*(_safe(str(problem)) for problem in problems), f"error: {count} in the manifest")
        case EngineFailed(report=report) if report:
            tail = tuple(f"  | {_safe(line)}" for line in report.splitlines()[-10:])
            return (*_message(error), *tail)
        case _:
            return _message(error)


def as_ours(raised: Exception) -> MullamaError:
    """What was raised as one of our errors; what nobody foresaw is a fault of mullama."""
    match raised:
        case MullamaError():
            return raised
        case PermissionError(filename=path, strerror=why):
            return Denied(f"{path}: {why}", authenticated=True)
        case FileNotFoundError(filename=path, strerror=why) if path:
            return NotFound(f"{path}: {why}", name=str(path))
        case OSError(filename=path, strerror=why) if why:
            return Internal(f"{path}: {why}" if path else why)
        case _:
            text = f"{type(raised).__name__}: {raised}"
            return Internal(f"a fault in mullama: {text}", hint="MULLAMA_DEBUG=1 shows where")


def _message(error: MullamaError) -> tuple[str, ...]:
    first, *more = error.message.splitlines() or [error.kind.value]
    unknown = error.kind is Kind.NOT_FOUND and first.startswith("model '")
    told = error.hint or ("mullama list shows the models" if unknown else "")
    hint = (f"hint: {_safe(told)}",) if told else ()
    return (f"error: {_safe(first)}", *(f"  {_safe(line)}" for line in more), *hint)


def _safe(text: str) -> str:
    return printable(" ".join(text.splitlines()))
