"""One host of a fleet, as its controller sees it: the host's operator API with a time limit on every call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

from mullama.client.address import ServerAddress
from mullama.client.http import Client, StreamStop
from mullama.errors import MullamaError, TimedOut, Unavailable
from mullama.manifest.spec import FleetHost
from mullama.reconcile.secrets import read_secret
from mullama.struct import Struct
from mullama.units import duration_literal

CALL_SECONDS = 15.0
"""The longest time of a call that answers at once. It is the time of the complete answer, so a host that sends one
byte from time to time is slow and not alive."""

RECORD_SECONDS = 3.0
"""The longest time in which a host takes a record: the end of a rollout waits for the last one."""

_AT_ONCE = 32  # calls to different hosts
T = TypeVar("T")


class HostStep(Struct, frozen=True, kw_only=True):
    """The change of one host in one step of a rollout."""

    manifest: Mapping[str, Any] | None = None
    """The resolved manifest to apply; None for a return to `to`."""
    to: int | None = None
    """The number of the revision to go back to."""
    expect: str | None = None
    """The revision that must be applied now."""
    fence: int
    """That of the lease under which it is made."""
    mark: str
    """`NAME/FENCE.STEP`, for the history of the host."""
    by: str
    targets: tuple[str, ...] = ()
    """The models and routes that the change is limited to; empty for the whole manifest."""
    offline: bool = False
    """The host downloads nothing."""
    locked: bool = False
    """The host refuses sources without a pin."""
    prepare: bool = False
    """The host fetches and checks the files, and changes nothing."""


class FleetHostPort(Protocol):
    """The calls of a controller to one host. Every error names the host."""

    @property
    def name(self) -> str: ...

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a GET within `CALL_SECONDS`."""
        ...

    def plan(self, manifest: Mapping[str, Any], targets: Sequence[str] = ()) -> Any:
        """Return the JSON of the plan that the host makes for a resolved manifest, or for these targets of it."""
        ...

    def lease(self) -> Mapping[str, Any]:
        """Return the lease in force on the host, and the highest fence that it saw."""
        ...

    def take_lease(self, holder: str, fleet: str, seconds: float, fence: int) -> Mapping[str, Any]:
        """Take the lease of the host for this time, or renew it with its own fence; return it.

        Raises `Conflict` while another controller holds it, and for a fence that is not above the last one.
        """
        ...

    def release_lease(self, holder: str) -> Any:
        """End the lease of this holder. Raises `Conflict` for that of another one."""
        ...

    def leave_record(self, record: Mapping[str, Any]) -> Any:
        """Leave the record of a rollout. Raises `NotFound` for a host whose mullama has no place for it."""
        ...

    def change(self, step: HostStep, *, within: float, stop: StreamStop) -> Iterator[Mapping[str, Any]]:
        """Carry out a step and yield the lines of the apply. within: seconds for all of it, else `TimedOut`.

        The host continues when the reader leaves.
        """
        ...

    def events(self, path: str, query: Mapping[str, str], stop: StreamStop) -> Iterator[Mapping[str, Any]]:
        """Yield server-sent events until the stop."""
        ...


class RemoteHost:
    """A host behind its address. Implements `FleetHostPort`. within: seconds for a call that answers at once."""

    def __init__(self, name: str, client: Client, *, within: float = CALL_SECONDS) -> None:
        self.name, self.client = name, client
        self._within = within

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def plan(self, manifest: Mapping[str, Any], targets: Sequence[str] = ()) -> Any:
        options: dict[str, Any] = {"trigger": "apply", "allow_empty": True}
        if targets:
            options["targets"] = list(targets)
        return self._ask("POST", "/api/v1/plan", {"manifest": manifest, "options": options})

    def lease(self) -> Mapping[str, Any]:
        tree: Mapping[str, Any] = self._ask("GET", "/api/v1/fleet/lease")
        return tree

    def take_lease(self, holder: str, fleet: str, seconds: float, fence: int) -> Mapping[str, Any]:
        body = {"holder": holder, "fleet": fleet, "seconds": seconds, "fence": fence}
        tree: Mapping[str, Any] = self._ask("PUT", "/api/v1/fleet/lease", body)
        return tree

    def release_lease(self, holder: str) -> Any:
        return self._ask("DELETE", "/api/v1/fleet/lease", {"holder": holder})

    def leave_record(self, record: Mapping[str, Any]) -> Any:
        return self._ask("PUT", "/api/v1/fleet/rollout", record, within=RECORD_SECONDS)

    def change(self, step: HostStep, *, within: float, stop: StreamStop) -> Iterator[Mapping[str, Any]]:
        if step.manifest is None:
            method, path = "POST", "/api/v1/undo"
            body: dict[str, Any] = {"to": step.to, "by": step.by, "fence": step.fence, "fleet": step.mark}
        else:
            method, path = "PUT", "/api/v1/stack"
            options: dict[str, Any] = {"allow_empty": True, "fence": step.fence, "trigger": "apply", "by": step.by}
            options |= {name: True for name in ("offline", "locked", "prepare") if getattr(step, name)}
            options |= {"targets": list(step.targets)} if step.targets else {}
            body = {"manifest": step.manifest, "origin": {"fleet": step.mark}, "options": options}
        headers = {} if step.expect is None else {"If-Match": f'"{step.expect}"'}
        with self._limited(within, stop):
            yield from self.client.lines(method, path, body, headers=headers, stop=stop)

    def events(self, path: str, query: Mapping[str, str], stop: StreamStop) -> Iterator[Mapping[str, Any]]:
        with named(self.name):
            yield from self.client.events(f"{path}?{urlencode(query)}", stop=stop)

    def _ask(
        self, method: str, path: str, tree: Mapping[str, Any] | None = None, *, within: float | None = None
    ) -> Any:
        stop, seconds = StreamStop(), self._within if within is None else min(within, self._within)
        with self._limited(seconds, stop):
            return self.client.request(method, path, tree, within=seconds, stop=stop)

    @contextlib.contextmanager
    def _limited(self, seconds: float, stop: StreamStop) -> Iterator[None]:
        """End the request after this time, and name the host in its error."""
        passed = threading.Event()

        def end() -> None:
            passed.set()
            stop.stop()

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
        timer.daemon = True
        timer.start()
        failure: MullamaError | None = None
        try:
            with named(self.name):
                yield
        except MullamaError as error:
            failure = error
        finally:
            timer.cancel()
        if passed.is_set() or isinstance(failure, TimedOut):  # a response that is cut off may look like a complete one
            raise TimedOut(
                f"{self.name} is slow: it did not answer within {duration_literal(seconds)}",
                hint="a change that it began continues there",
            ) from failure
        if failure is not None:
            raise failure


@contextlib.contextmanager
def named(host: str) -> Iterator[None]:
    """Begin the message of an error with the name of the host."""
    try:
        yield
    except MullamaError as error:
        error.message = f"{host}: {error.message}"
        error.hint = _hint_of(host, error.hint)
        error.args = (error.message,)
        raise


def _hint_of(host: str, hint: str) -> str:
    """Return the hint of the client of one server as it is for a host of a manifest."""
    for option, field in (("--key-file", "key"), ("--ca-file", "ca_file")):
        if option in hint:
            return f"see fleet.hosts.{host}.{field}"
    return "start it there: mullama serve" if "mullama serve" in hint else hint


def remote_host(name: str, host: FleetHost, env: Mapping[str, str]) -> RemoteHost:
    """Return the client of a host of the manifest. Raises `NotFound` and `Denied` for a key that cannot be read."""
    key = read_secret(host.key, f"fleet.hosts.{name}.key", env) if host.key is not None else None
    client = Client(ServerAddress.parse(host.url), key=key, ca_file=host.ca_file)
    return RemoteHost(name, client)


def on_each(hosts: Iterable[FleetHostPort], call: Callable[[FleetHostPort], T]) -> dict[str, T | MullamaError]:
    """Call all hosts at the same time; return the answer or the error of each by its name, in their order."""

    def caught(host: FleetHostPort) -> T | MullamaError:
        try:
            return call(host)
        except MullamaError as error:
            return error
        except OSError as error:
            return Unavailable(f"{host.name}: {error.strerror or error}")

    chosen = list(hosts)
    if len(chosen) <= 1:
        return {host.name: caught(host) for host in chosen}
    with ThreadPoolExecutor(min(_AT_ONCE, len(chosen)), thread_name_prefix="fleet") as pool:
        return dict(zip((host.name for host in chosen), pool.map(caught, chosen), strict=True))
