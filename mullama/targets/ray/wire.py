"""The messages between a gateway and a replica. Both run the same version, so values travel pickled, by Ray.

An error travels as a value: Ray wraps exceptions into its own, and those of mullama have arguments that pickle lacks.
"""

from __future__ import annotations

import pickle
from typing import Any

from mullama import errors
from mullama.errors import Internal, ModelUnavailable, MullamaError, Unavailable
from mullama.runtime.base import Caller
from mullama.struct import Struct, replace


class RemoteError(Struct, frozen=True, kw_only=True):
    """A `MullamaError` of a replica."""

    kind: str
    """Name of its class."""
    args: tuple[Any, ...]
    fields: dict[str, Any]


class FindRefusal(Struct, frozen=True):
    """Asks a replica for the failure of its newest settings: None, or a `RemoteError` if it serves with older ones."""


def message(value: object) -> bytes:
    """Return a value as one message of a stream. Ray sends bytes as they are, and serializes all else more slowly."""
    return pickle.dumps(value, protocol=5)


def value_of(message: bytes) -> Any:
    """Return the value of a message of a stream. Only replicas send them, whose other messages Ray unpickles, too."""
    return pickle.loads(message)


def packed(error: MullamaError) -> RemoteError:
    """Return the error as a value."""
    if isinstance(error, ModelUnavailable):
        error = Unavailable(error.message, hint=error.hint, retry_after=error.retry_after)
    return RemoteError(kind=type(error).__name__, args=error.args, fields=dict(vars(error)))


def unpacked(error: RemoteError) -> MullamaError:
    """Return the error of a value."""
    found = getattr(errors, error.kind, None)
    if not (isinstance(found, type) and issubclass(found, MullamaError)):
        return Internal(str(error.args[0]) if error.args else "an unknown error of a replica")
    made = found.__new__(found)
    made.args = error.args
    vars(made).update(error.fields)
    return made


def sent(caller: Caller) -> Caller:
    """Return the caller as a replica gets it: the gateway has checked its rights, and bounds the memory of bodies."""
    return replace(caller, models=("*",), memory=None, sent=None)


class ReplicaLost(Unavailable):
    """The replica of a request died, or its node did."""


class ApplicationReplaced(ReplicaLost):
    """A request waited for a replica of an application that its model has no longer."""
