"""Imports of other tools' configurations as models of a manifest, with a list of the settings that are left out."""

from mullama.manifest.importing.compose import from_compose
from mullama.manifest.importing.found import GgufFile, Imported, RegistryModel, folder_models, registry_models
from mullama.manifest.importing.llamaswap import from_llama_swap

__all__ = [
    "GgufFile", "Imported", "RegistryModel", "folder_models", "from_compose", "from_llama_swap", "registry_models",
]  # fmt: skip
