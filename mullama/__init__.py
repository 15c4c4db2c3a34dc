"""mullama: the declarative way to run local LLMs."""

TYPE_CHECKING = False  # as type checkers read it: `typing` takes longer to import than all that `--version` needs
if TYPE_CHECKING:
    from mullama.api import (
        Answer,
        Context,
        ContextParams,
        MemoryInfo,
        Model,
        ModelParams,
        MullamaError,
        Sampling,
        TextStream,
    )

__version__ = "0.2.0"

__all__ = [
    "Answer",
    "Context",
    "ContextParams",
    "MemoryInfo",
    "Model",
    "ModelParams",
    "MullamaError",
    "Sampling",
    "TextStream",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import the Python API on first use, so that `mullama --version` does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'mullama' has no attribute {name!r}")
    import mullama.api

    return getattr(mullama.api, name)
