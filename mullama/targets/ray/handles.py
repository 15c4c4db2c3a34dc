"""The replicas of applications through Serve's handles: streams, cancellation, back-pressure, and their errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException, RequestCancelledError

from mullama.errors import Busy, Internal, MullamaError, Unavailable
from mullama.runtime.base import Caller
from mullama.targets.ray.wire import ReplicaLost, value_of


class AppHandles:
    """Implements `service.Replicas`: one handle for each application."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}
        self._uses: Counter[str] = Counter()
        """Requests in progress by application."""
        self._kept: frozenset[str] | None = None

    async def keep(self, applications: frozenset[str]) -> None:
        self._kept = applications
        for application in tuple(self._handles):
            await self._forget(application)

    async def _forget(self, application: str) -> None:
        """Close the handle of an application without requests that is not kept: it reports to Serve until then."""
        if self._kept is None or application in self._kept or self._uses[application]:
            return
        del self._uses[application]
        if (handle := self._handles.pop(application, None)) is not None:
            with suppress(Exception):  # the end of the handle is the end of its reports, too
                await handle.shutdown_async()

    @asynccontextmanager
    async def _handle(self, application: str) -> AsyncGenerator[Any, None]:
        """Yield the handle of an application for one request."""
        self._uses[application] += 1
        try:
            yield await self._opened(application)
        finally:
            self._uses[application] -= 1
            await self._forget(application)

    async def _opened(self, application: str) -> Any:
        found = self._handles.get(application)
        if found is None:
            try:
                # It asks the controller of Serve, and blocks until the answer.
                found = await asyncio.to_thread(serve.get_app_handle, application)
            except RayServeException as error:
                raise Unavailable(f"the application {application} does not run", retry_after=1.0) from error
            self._handles[application] = found
        return found

    async def stream(
        self, application: str, request: Any, caller: Caller, affinity: bytes
    ) -> AsyncGenerator[Any, None]:
        async with self._handle(application) as handle:
            response = handle.options(method_name="stream", stream=True).remote(request, caller, affinity)
            ended = False
            try:
                async for message in response:
                    yield value_of(message)
                ended = True
            except (RayError, RayServeException) as error:
                ended = True
                raise self._failure(application, error) from error
            finally:
                if not ended:
                    with suppress(Exception):
                        response.cancel()

    async def ask(self, application: str, operation: Any, caller: Caller, affinity: bytes) -> Any:
        async with self._handle(application) as handle:
            response = handle.options(method_name="ask").remote(operation, caller, affinity)
            try:
                return await response
            except asyncio.CancelledError:
                with suppress(Exception):
                    response.cancel()
                raise
            except (RayError, RayServeException) as error:
                raise self._failure(application, error) from error

    def _failure(self, application: str, error: Exception) -> MullamaError:
        if isinstance(error, BackPressureError):
            return Busy(f"the queue of {application} is full", hint="try again later", retry_after=1.0)
        if isinstance(error, DeploymentUnavailableError):
            self._handles.pop(application, None)  # the next try looks at the snapshot again
            return ReplicaLost(f"the application {application} does not run", retry_after=1.0)
        if isinstance(error, RequestCancelledError):
            return ReplicaLost(f"a replica of {application} cancelled the request")
        if isinstance(error, RayActorError):
            return ReplicaLost(f"a replica of {application} was lost", hint="try again", retry_after=1.0)
        if isinstance(error, RayTaskError):
            return Internal(f"a replica of {application} failed", hint="mullama logs --on ray shows its log")
        return Unavailable(f"{application}: {type(error).__name__}", retry_after=1.0)
