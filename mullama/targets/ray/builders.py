"""The functions that Serve calls to build an application. They import nothing heavy: a replica does, when it starts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from ray import serve

from mullama.export.ray_serve import DEPLOYMENT, GATEWAY_DEPLOYMENT

if TYPE_CHECKING:
    from ray.serve import Application


@serve.deployment(name=DEPLOYMENT)
class ModelDeployment:
    """A replica of one model."""

    def __init__(self) -> None:
        import os

        from mullama.targets.ray.replica import ModelReplica

        context = serve.get_replica_context()
        self._replica = ModelReplica(f"{context.app_name}-{context.replica_id.unique_id}", os.environ)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        from mullama.targets.ray.logs import configure

        configure(user_config["manifest"])
        await self._replica.configure(user_config)

    async def stream(self, request: Any, caller: Any, affinity: bytes = b"") -> AsyncGenerator[bytes, None]:
        from contextlib import aclosing

        from mullama.targets.ray.wire import message

        async with aclosing(self._replica.stream(request, caller)) as events:
            async for some in events:
                yield message(some)

    async def ask(self, operation: Any, caller: Any, affinity: bytes = b"") -> Any:
        return await self._replica.ask(operation, caller)

    def check_health(self) -> None:
        # Serve calls it each period, and replaces a replica where it raises or does not return.
        self._replica.check_health()

    async def __del__(self) -> None:
        await self._replica.close()


def model(args: Mapping[str, Any]) -> Application:
    """Return the application of a model. args: the name of its stack and its own, which `status` reads."""
    return ModelDeployment.bind()  # type: ignore[attr-defined]  # Serve adds it


@serve.deployment(name="probe")
class ProbeDeployment:
    """Asks new applications for one token each. Its start fails with the reason of the first that does not answer."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, version: str, models: Mapping[str, str], tasks: Mapping[str, str]
    ) -> None:
        from mullama.targets.ray.handles import AppHandles
        from mullama.targets.ray.probe import probe, require_version

        require_version(version)
        for application, model in models.items():
            await probe(AppHandles(), application, model, tasks[application])

    def __call__(self) -> None:
        """Serve requires a method."""


def probe(args: Mapping[str, Any]) -> Application:
    """Return the application of a probe. args: the version of the apply; the models and their tasks by application."""
    return ProbeDeployment.bind(args["version"], args["models"], args["tasks"])  # type: ignore[attr-defined]  # Serve adds it


@serve.deployment(name=GATEWAY_DEPLOYMENT)
@serve.ingress()
class GatewayDeployment:
    """A replica of the gateway: mullama's HTTP application over the replicas of models."""

    def __init__(self) -> None:
        import os

        from mullama.targets.ray.gateway import Gateway
        from mullama.targets.ray.handles import AppHandles

        self._inside = Gateway(AppHandles(), os.environ)

    def __serve_build_asgi_app__(self) -> Callable[..., Awaitable[None]]:
        return self._inside

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        await self._inside.configure(user_config)

    async def check_health(self) -> None:
        self._inside.check_health()


def gateway(args: Mapping[str, Any]) -> Application:
    """Return the application of the gateway."""
    return GatewayDeployment.bind()  # type: ignore[attr-defined]  # Serve adds it
