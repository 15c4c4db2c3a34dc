"""`builtin:NAME`: weights in the package, which are used in place."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mullama.errors import NotFound
from mullama.names import BuiltinRef, suggest
from mullama.sources.base import Cancelled
from mullama.weights.located import Located, LocatedFile

_FOLDER: Final = Path(__file__).parent / "builtin_models"


class Builtin:
    """Finds the models of the package."""

    def __init__(self, *, projector: bool = True) -> None:
        """projector: add the projector of the model, if it has one."""
        self._projector = projector

    def locate(self, ref: BuiltinRef, cancelled: Cancelled) -> Located:
        models = builtin_models()
        path = models.get(ref.name)
        if path is None:
            names = sorted(name for name in models if not name.startswith("mmproj-"))
            raise NotFound(
                f"there is no built-in model {ref.name!r}", name=ref.name, near=suggest(ref.name, names),
                hint=f"there is {' and '.join(names)}",
            )  # fmt: skip
        file = LocatedFile(name=path.name, path=str(path), size=path.stat().st_size)
        files: tuple[LocatedFile, ...] = (file,)
        beside = path.with_name(f"mmproj-{path.name}")
        if self._projector and beside.exists():
            size = beside.stat().st_size
            files = (file, LocatedFile(name=beside.name, path=str(beside), size=size, role="projector"))
        return Located(source=str(ref), resolved=str(ref), files=files, license="apache-2.0")


def builtin_models() -> dict[str, Path]:
    """Return the file of each model in the package by name; `mmproj-NAME` is the projector of a model."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.gguf"))}
