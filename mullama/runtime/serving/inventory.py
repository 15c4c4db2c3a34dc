"""The inventory behind the HTTP endpoints: questions about models, and their load, unload and change.

A request takes the snapshot once, when it arrives.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol, assert_never

from mullama.chat import inventory as inv
from mullama.errors import Denied, Invalid, NotFound
from mullama.offload import LARGE, compute
from mullama.runtime.base import Caller
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.serving.model_info import cards, peer_card, running_cards, show_card, states, with_headers
from mullama.runtime.serving.places import PlaceBoard
from mullama.runtime.serving.tries import declared, served
from mullama.runtime.snapshot import Snapshot
from mullama.struct import replace

InventoryOperation = (
    inv.ListModels
    | inv.ListRunning
    | inv.ShowModel
    | inv.LoadModel
    | inv.PullModel
    | inv.CreateModel
    | inv.CopyModel
    | inv.DeleteModel
    | inv.SetDefault
    | inv.SetAdapterScales
    | inv.FindBlob
    | inv.StoreBlob
    | inv.WatchModels
)
InventoryResult = inv.Inventory | inv.ModelCard | inv.Loaded | inv.TaskStatus | inv.Done


class InventoryCommands(Protocol):
    """Changes of the inventory without the manifest; see `controller.model_commands`."""

    def pull(self, request: inv.PullModel) -> AsyncIterator[inv.TaskStatus]: ...
    def create(self, request: inv.CreateModel) -> AsyncIterator[inv.TaskStatus]: ...
    async def copy(self, request: inv.CopyModel) -> None: ...
    async def delete(self, request: inv.DeleteModel) -> None: ...
    async def set_default(self, request: inv.SetDefault) -> None: ...
    async def set_adapter_scales(self, request: inv.SetAdapterScales) -> None: ...
    def has_blob(self, digest: str) -> bool: ...
    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes]) -> bool: ...


class ModelInventory:
    """Answers the operations of `chat.inventory`."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], pool: Pool, commands: InventoryCommands, places: PlaceBoard
    ) -> None:
        self._snapshot, self._pool, self._commands, self._places = snapshot, pool, commands, places

    async def answer(self, operation: InventoryOperation, caller: Caller) -> InventoryResult:
        """Answer questions about models, and change the inventory."""
        match operation:
            case inv.ListModels():
                return inv.Inventory(models=cards(self._snapshot(), self._pool, caller))
            case inv.ListRunning():
                return inv.Inventory(models=running_cards(self._snapshot(), self._pool, caller))
            case inv.ShowModel():
                if (remote := peer_card(self._snapshot(), operation.model, caller)) is not None:
                    return remote
                deployment = declared(self._snapshot(), operation.model, caller)
                shown = show_card(self._snapshot(), self._pool, deployment)
                if operation.headers:
                    shown = await compute(LARGE, with_headers, shown, deployment, operation.verbose)
                slots = self._places.slots(deployment.unit, deployment.options.parallel)
                return replace(shown, slots=slots, paths=shown.paths if "admin" in caller.roles else ())
            case inv.LoadModel():
                return await self._load(operation, caller)
            case inv.PullModel() | inv.CreateModel():
                return [status async for status in self.tasks(operation)][-1]
            case inv.CopyModel():
                await self._commands.copy(operation)
                return inv.Done()
            case inv.DeleteModel():
                await self._commands.delete(operation)
                return inv.Done()
            case inv.SetDefault():
                await self._commands.set_default(operation)
                return inv.Done()
            case inv.SetAdapterScales():
                name = declared(self._snapshot(), operation.model, caller).name
                await self._commands.set_adapter_scales(replace(operation, model=name))
                return inv.Done()
            case inv.FindBlob(digest=digest):
                return inv.Done(found=self._commands.has_blob(digest))
            case inv.StoreBlob():
                raise Invalid("a blob is the body of a request of its own")
            case inv.WatchModels():
                raise Invalid("the states of models are a stream")
            case _:
                assert_never(operation)

    def tasks(self, operation: inv.PullModel | inv.CreateModel) -> AsyncIterator[inv.TaskStatus]:
        """Pull or create a model, with its progress."""
        return (
            self._commands.pull(operation) if isinstance(operation, inv.PullModel) else self._commands.create(operation)
        )

    async def watch(self, caller: Caller) -> AsyncGenerator[inv.ModelStateReport, None]:
        """Yield the state of each model that the caller may use, then its changes; "" for one that is gone. Endless."""
        known: dict[str, str] = {}
        while True:
            changed = self._pool.changed
            now = states(self._snapshot(), self._pool, caller)
            for name in known.keys() - now.keys():
                yield inv.ModelStateReport(model=name, state="")
            for name, state in now.items():
                if known.get(name) != state:
                    yield inv.ModelStateReport(model=name, state=state)
            known = now
            await changed.wait()

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store a blob; see `controller.model_commands`."""
        return await self._commands.receive_blob(digest, chunks)

    async def _load(self, operation: inv.LoadModel, caller: Caller) -> inv.Loaded:
        """Load a model without a completion; `keep_alive` 0 unloads it instead."""
        if operation.only_change:
            unit = served(self._snapshot(), operation.model, caller).unit
            loaded = self._pool.phase(unit) in (Phase.OPENING, Phase.READY)
            if loaded != (operation.keep_alive == 0):
                raise Invalid(f"model '{operation.model}' is {'already' if loaded else 'not'} loaded", field="model")
        if operation.keep_alive == 0:
            name = self._unloadable(operation.model, caller)
            self._check_sharers(name, caller)
            self._pool.unload(name, forced=operation.forced)
            return inv.Loaded(model=operation.model, unloaded=True)
        deployment = served(self._snapshot(), operation.model, caller)
        self._pool.retry(deployment.name)
        async with self._pool.lease(deployment.name, caller.priority):
            pass
        if operation.keep_alive is not None:
            self._pool.keep_alive(deployment.name, operation.keep_alive)
        return inv.Loaded(model=operation.model)

    def _unloadable(self, name: str, caller: Caller) -> str:
        """Return the model behind a name, also one that the reconciler loads and that is not served yet."""
        try:
            return declared(self._snapshot(), name, caller).name
        except NotFound:
            if self._pool.prepares(name) and caller.may_use(name):
                return name
            raise

    def _check_sharers(self, name: str, caller: Caller) -> None:
        """Raise `Denied` if a model that the key may not use would be unloaded, because it shares the context."""
        deployments = self._snapshot().deployments
        if name not in deployments:
            return
        for other, deployment in deployments.items():
            if deployment.unit == deployments[name].unit and not caller.may_use(other):
                message = f"{name} shares its context with {other}, which the key '{caller.key}' may not use"
                raise Denied(message, authenticated=True)
