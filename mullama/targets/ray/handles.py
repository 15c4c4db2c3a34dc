"""The replicas of applications through Serve's handles: streams, cancellation, back-pressure, and their errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException, RequestCancelledError

from mullama.errors import Busy, Internal, MullamaError, Unavailable
from mullama.runtime.base import Caller
from mullama.targets.ray.wire import ReplicaLost


class AppHandles:
    """Implements `service.Replicas`: one handle for each application."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    async def _handle(self, application: str) -> Any:
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
        handle = await self._handle(application)
        response = handle.options(method_name="stream", stream=True).remote(request, caller, affinity)
        ended = False
        try:
            async for events in response:
                yield events
            ended = True
        except (RayError, RayServeException) as error:
            ended = True
            raise self._failure(application, error) from error
        finally:
            if not ended:
                with suppress(Exception):
                    response.cancel()

    async def ask(self, application: str, operation: Any, caller: Caller, affinity: bytes) -> Any:
        handle = await self._handle(application)
        response = handle.options(method_name="ask").remote(operation, caller, affinity)
        try:
            return await response
        except asyncio.CancelledError:
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
