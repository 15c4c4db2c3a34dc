"""The values of an export: the manifest with what is known of it, the options, and the files that are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mullama.manifest.spec import Manifest, Model
from mullama.plan.observed import KnownFiles
from mullama.struct import Struct, field

PROGRAM = "mullama"
"""Name of the program, of its container image, and of what an export creates, unless `ExportOptions` has another."""
MARK = "Written by `mullama export"
"""The first line of each file has this text after the sign of a comment. A file without it is not overwritten."""

_GPU = re.compile(r"(?:CUDA|ROCm|HIP|Vulkan|SYCL)?([0-9]+)", re.IGNORECASE)


class MemoryUse(Struct, frozen=True, kw_only=True):
    """Bytes of main memory that the models need without a GPU; weights and contexts that models share count once."""

    start: int
    """Of the models that load at the start."""
    all: int
    """Of all models."""


class ExportOptions(Struct, frozen=True, kw_only=True):
    """The options of the command. A target ignores none: the command refuses those that a target does not have."""

    name: str = PROGRAM
    """Name of the service, the unit or the objects."""
    image: str = ""
    """Container image; without it the image `mullama` with the version of this program."""
    namespace: str = ""
    replicas: int = 1
    gpus: int | None = None
    """GPUs of one server; None takes the number from the device maps of the models."""
    storage: str = "50Gi"
    """Size of the volume for weights, as Kubernetes writes it."""
    storage_class: str = ""
    weights_image: str = ""
    """Image whose files are mounted as a volume of weights."""
    endpoint_picker: str = ""
    """Service of the endpoint picker of a Gateway API inference pool."""
    program: str = ""
    """Absolute path of the program that a unit starts."""
    models: tuple[str, ...] = ()
    """Models to export; none for all."""


class ExportInput(Struct, frozen=True, kw_only=True):
    """A manifest with everything that an export needs to know."""

    manifest: Manifest
    version: str
    """Version of this program."""
    path: str | None = None
    """Absolute path of the manifest; None for standard input."""
    lock: str | None = None
    """Text of the lock file; None without one."""
    memory: MemoryUse | None = None
    """None if the size of a model is not known, because its file is neither stored nor locked."""
    weights: dict[str, str] = field(default_factory=dict)
    """Absolute path of the stored file of each source, as far as it is stored."""
    known: Mapping[str, KnownFiles] = field(default_factory=dict)
    """The files of each source, as far as they are known."""
    options: ExportOptions = ExportOptions()

    @property
    def image(self) -> str:
        """The container image."""
        return self.options.image or f"{PROGRAM}:{self.version}"


class ExportedFile(Struct, frozen=True, kw_only=True):
    """One file of an export."""

    path: str
    """Path below the folder of the export, with `/`."""
    text: str


class Exported(Struct, frozen=True, kw_only=True):
    """The files of an export, the first of which is the one to start with."""

    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...] = ()
    """Parts of the manifest that the target cannot have, and what remains to be done by hand."""


def header(target: str, *lines: str) -> str:
    """Return the comment at the beginning of an exported file, without the signs of a comment."""
    return "\n".join((f"{MARK} {target}`: change the manifest and export again.", *lines))


def gpu_numbers(model: Model) -> list[int]:
    """Return the numbers of the GPUs that a model names: 1 for `CUDA1`. Devices of other machines have none."""
    layers = model.gpu.layers
    named = [*(layers if isinstance(layers, dict) else ()), *model.gpu.devices]
    return [int(found[1]) for device in named if (found := _GPU.fullmatch(str(device)))]
