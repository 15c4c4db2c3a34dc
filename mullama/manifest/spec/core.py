"""pydantic's core, imported without the types of core schemas, which only type checkers need.

They are half of its import. A later import of `pydantic_core.core_schema` gets the module itself.
"""

import sys
from types import ModuleType


class _Types(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


if "pydantic_core" not in sys.modules:
    sys.modules["pydantic_core.core_schema"] = _Types("pydantic_core.core_schema")
    try:
        import pydantic_core  # noqa: F401
    finally:
        del sys.modules["pydantic_core.core_schema"]

from pydantic_core import (  # noqa: E402
    PydanticKnownError,
    SchemaSerializer,
    SchemaValidator,
    ValidationError,
    __version__,
)

__all__ = ["PydanticKnownError", "SchemaSerializer", "SchemaValidator", "ValidationError", "__version__"]
