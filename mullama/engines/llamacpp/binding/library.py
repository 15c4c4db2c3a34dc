"""The library: start once per process, log and version."""

from __future__ import annotations

import ctypes
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c


class _Log:
    """Keeps the last errors of llama.cpp's log, and records all lines while a file or context is opened."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=40)
        self.follower: Callable[[str], None] | None = None
        """Receives each line that is not for debugging llama.cpp itself."""
        self._recordings: list[list[str]] = []
        self._partial = ""
        self.callback = c.llama_log_callback(self._take)

    def _take(self, level: int, text: bytes, _user_data: object) -> None:
        self._partial += text.decode("utf-8", "replace")
        while "\n" in self._partial:
            line, _, self._partial = self._partial.partition("\n")
            for recording in self._recordings:
                recording.append(line)
            if level in (3, 4):  # warnings and errors
                self.errors.append(line)
            if self.follower is not None and level != 1:
                self.follower(line)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        lines: list[str] = []
        self._recordings.append(lines)
        try:
            yield lines
        finally:
            self._recordings = [other for other in self._recordings if other is not lines]

    def report(self) -> str:
        return "\n".join(self.errors)


log = _Log()


@cache
def start() -> None:
    """Initialise the library, once per process. An abort must not fork a debugger in a worker."""
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    c.llama_log_set(log.callback, ctypes.c_void_p(0))
    c.llama_backend_init()


def with_signatures(signatures: Mapping[str, tuple[Any, tuple[Any, ...]]]) -> Any:
    """Return the binding's libraries with these result and argument types: one copy of ggml is in the process."""
    library = ctypes.CDLL(c._lib._name)
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def version() -> str:
    """Return the versions of the binding and of llama.cpp."""
    native = c._lib.llama_version
    native.restype = ctypes.c_char_p
    return f"llama-cpp-python {_binding_version()}, llama.cpp {native().decode()}"


def _binding_version() -> str:
    """Read the version from the text of the package, which is not executed, see the package of this module."""
    text = Path(c.__file__).with_name("__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+?)"', text, re.MULTILINE)
    return found[1] if found else "unknown"


def sum_sizes(lines: Sequence[str], label: str) -> int:
    """Return the sum of sizes that llama.cpp logged as `<device> <label> = <n> MiB`, in bytes."""
    pattern = re.compile(rf"{label} =\s*([0-9.]+) MiB")
    return int(sum(float(m[1]) for line in lines if (m := pattern.search(line))) * 2**20)


def offloaded_layers(lines: Sequence[str]) -> int:
    for line in lines:
        if m := re.search(r"offloaded (\d+)/\d+ layers to GPU", line):
            return int(m[1])
    return 0


def first_reason(lines: Sequence[str]) -> str:
    """Return the first line about an error, because later ones only repeat it; else the last line."""
    errors = [line for line in lines if re.search(r"error|fail|unsupported|missing", line, re.IGNORECASE)]
    return (errors[:1] or list(lines[-1:]) or ["no reason was given"])[0].strip()[:300]
