"""The draft models of one engine: loaded once for all contexts, and compared with its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mullama.engines.base import DraftOptions, WeightsOptions
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.errors import BadWeights
from mullama.struct import replace

# As llama.cpp's common_speculative_are_compatible: the first tokens may differ, and a few more may follow.
_FIRST_COMPARED, _MOST_ADDED = 5, 128

_Files = tuple[tuple[str, ...], str]  # the paths of a draft model and its digest


class DraftModels:
    """Loads draft models for the contexts over one set of weights."""

    def __init__(self, model: NativeModel, file: str, options: WeightsOptions) -> None:
        """file: the first file of the weights. options: how they are loaded."""
        self._model = model
        self._file = file
        self._options = replace(options, gpu_layers=-1 if options.gpu_layers else 0, tensor_split=())
        self._loaded: dict[_Files, NativeModel] = {}

    def get(self, options: DraftOptions) -> NativeModel:
        """Return a draft model; raise `BadWeights` for one that cannot be loaded, or has another vocabulary."""
        found = self._loaded.get(_files(options))
        if found is None:
            found = NativeModel(options.files, self._options, lambda _share: True)
            try:
                require_same_vocabulary(self._model, found, (self._file, options.files[0]))
            except BadWeights:
                found.close()
                raise
            self._loaded[_files(options)] = found
        return found

    def keep(self, used: Iterable[DraftOptions | None]) -> None:
        """Free the models that no context uses."""
        files = {_files(options) for options in used if options}
        for unused in self._loaded.keys() - files:
            self._loaded.pop(unused).close()


def _files(options: DraftOptions) -> _Files:
    return options.files, options.digest


def require_same_vocabulary(model: NativeModel, drafter: NativeModel, files: tuple[str, str]) -> None:
    """Raise `BadWeights` unless both models have the same tokens. files: their paths, for the message."""
    names = tuple(Path(file).name for file in files)
    compared = range(_FIRST_COMPARED, min(model.vocabulary, drafter.vocabulary))
    if abs(model.vocabulary - drafter.vocabulary) > _MOST_ADDED:
        difference = f"{drafter.vocabulary} tokens, not {model.vocabulary}"
    elif model.add_bos != drafter.add_bos or model.special("eos") != drafter.special("eos"):
        difference = "other tokens at the beginning or the end of a text"
    elif (at := next((t for t in compared if model.text(t) != drafter.text(t)), None)) is not None:
        difference = f"token {at} is {drafter.text(at)!r}, not {model.text(at)!r}"
    else:
        return
    raise BadWeights(
        f"the draft model {names[1]} has another vocabulary than {names[0]}: {difference}",
        hint="use a draft model of the same family, or draft: ngram",
    )
