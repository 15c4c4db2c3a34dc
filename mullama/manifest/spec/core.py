"""pydantic's core, imported without the types of core schemas, which only type checkers need.

They are half of its import. A later import of `pydantic_core.core_schema` gets the module itself.
"""

from mullama.imports import import_without

import_without(
    {"pydantic_core.core_schema": dict.fromkeys(("CoreConfig", "CoreSchema", "CoreSchemaType", "ErrorType"), object)},
    "pydantic_core",
)

from pydantic_core import (  # noqa: E402 - after the call
    PydanticKnownError,
    SchemaSerializer,
    SchemaValidator,
    ValidationError,
    __version__,
)

__all__ = ["PydanticKnownError", "SchemaSerializer", "SchemaValidator", "ValidationError", "__version__"]
