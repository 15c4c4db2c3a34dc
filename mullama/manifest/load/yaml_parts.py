"""The event parser of PyYAML, without its loaders and dumpers; the only importer of yaml."""

from __future__ import annotations

import re
from typing import Any

from mullama.imports import without_package

# The same characters, first as PyYAML writes them, then so that `re` compiles them in a tenth of the time.
_UNPRINTABLE = "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_SAME = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"


def _import_reader() -> None:
    """Import `yaml.reader`, whose one pattern takes as long to compile as a short manifest to read."""
    compile_pattern = re.compile

    def compile_fast(pattern: Any, flags: Any = 0) -> Any:
        return compile_pattern(_SAME if pattern == _UNPRINTABLE else pattern, flags)

    re.compile = compile_fast
    try:
        import yaml.reader  # noqa: F401 - for its effect
    finally:
        re.compile = compile_pattern


without_package("yaml")
_import_reader()

from yaml.error import MarkedYAMLError  # noqa: E402 - after the package
from yaml.events import (  # noqa: E402
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.parser import Parser  # noqa: E402
from yaml.reader import Reader, ReaderError  # noqa: E402
from yaml.scanner import Scanner  # noqa: E402
from yaml.tokens import ScalarToken  # noqa: E402

__all__ = [
    "AliasEvent", "CollectionStartEvent", "DocumentStartEvent", "Event", "MappingEndEvent", "MarkedYAMLError",
    "NodeEvent", "Parser", "Reader", "ReaderError", "ScalarEvent", "ScalarToken", "Scanner", "SequenceEndEvent",
    "SequenceStartEvent", "StreamEndEvent",
]  # fmt: skip
