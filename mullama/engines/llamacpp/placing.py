"""Loads weights with as many layers on devices as their memory holds, where the manifest leaves the number open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from mullama.engines.base import WeightsOptions
from mullama.engines.llamacpp.binding.devices import find_device, free_memory
from mullama.engines.llamacpp.binding.dry_run import measure
from mullama.engines.llamacpp.binding.model import DeviceMemoryShort, NativeModel
from mullama.struct import replace

_TRIES = 8  # dry runs; each reads the header once
_HEADROOM = 64 * 1024**2  # bytes that stay free: a driver rounds allocations up

Measure = Callable[[int], Sequence[int] | None]
"""Returns the bytes on each device for a number of layers."""


class WeightsLoader:
    """Loads weights. With `options.fit`, it chooses the layers by dry runs, and loads fewer if a device refuses.

    Errors: see `NativeModel`.
    """

    def __init__(self, files: Sequence[str], options: WeightsOptions, progress: Callable[[float], bool]) -> None:
        self._files, self._options, self._progress = files, options, progress
        self._planned = 0

    def load(self) -> NativeModel:
        if self._options.fit is None:
            return NativeModel(self._files, self._options, self._progress)
        self._planned = NativeLayers(self._files, self._options).chosen()
        return self._load(self._planned)

    def lower(self, model: NativeModel) -> NativeModel | None:
        """Load the weights with fewer layers on devices, after the devices had no memory for a context, and free
        `model`. Return None, and free nothing, where the manifest fixes the number or no layer is on a device.
        """
        if self._options.fit is None or not model.gpu_layers:
            return None
        model.close()
        return self._load(fewer(model.gpu_layers))

    def _load(self, layers: int) -> NativeModel:
        while True:
            try:
                model = NativeModel(self._files, _with_layers(self._options, layers), self._progress)
            except DeviceMemoryShort:
                if not layers:
                    raise
                layers = fewer(layers)
                continue
            if layers < self._planned:
                model.remarks = (
                    f"the memory of the devices was short: {layers} of {self._planned} planned layers are on them",
                )
            return model


def fewer(layers: int) -> int:
    """Return the number of layers to try after a device refused this many."""
    return layers * 3 // 4


def _with_layers(options: WeightsOptions, layers: int) -> WeightsOptions:
    """Return the options with this number of layers; without any, no device is used and no host is asked."""
    if layers:
        return replace(options, gpu_layers=layers)
    return replace(options, gpu_layers=0, devices=(), tensor_split=(), in_main_memory=())


class NativeLayers:
    """The choice of a number of layers for files that are on disk."""

    def __init__(self, files: Sequence[str], options: WeightsOptions) -> None:
        assert options.fit is not None
        self._files, self._options, self._fit = files, options, options.fit

    def chosen(self) -> int:
        """Return the largest number of layers that fits, the planned one where dry runs are not possible."""
        devices = [find_device(name) for name in self._options.devices]
        free = [free_memory(device) for device in devices]
        bounds = zip_longest(free, self._fit.rooms, self._fit.beside, fillvalue=0)
        rooms = [max(0, min(now, bound or now) - beside) for now, bound, beside in bounds]
        probe = NativeModel(self._files, _with_layers(self._options, 0), lambda share: True, dry=True)
        most = probe.layers + 1
        probe.close()
        planned = self._options.gpu_layers
        first = most if planned < 0 else min(planned, most)
        return most_layers(self._measured, [room - min(_HEADROOM, room // 16) for room in rooms], first, most)

    def _measured(self, layers: int) -> Sequence[int] | None:
        return measure(self._files, _with_layers(self._options, layers), self._fit.shape) if layers else []


def most_layers(measured: Measure, rooms: Sequence[int], first: int, most: int) -> int:
    """Return the largest number of layers, at most `most`, whose bytes fit into the rooms of all devices.

    The search begins with `first`, an estimate that is usually right or off by one, then halves the range. Without a
    measure the estimate is the result.
    """
    low, high = 0, most + 1  # `low` fits, `high` does not
    guess = first
    for _ in range(_TRIES):
        found = measured(guess)
        if found is None:
            return first
        fits = all(count <= room for count, room in zip(found, rooms, strict=False))
        low, high = (guess, high) if fits else (low, guess)
        if low + 1 >= high:
            break
        near = guess in (first, first - 1, first + 1)
        guess = low + 1 if near and fits else high - 1 if near else (low + high) // 2
    return low
