"""What other tools' configurations say, in the manifest's words, and what of it could not be carried."""

from mullama.manifest.importing.compose import from_compose
from mullama.manifest.importing.found import GgufFile, Imported, RegistryModel, folder_models, registry_models
from mullama.manifest.importing.llamaswap import from_llama_swap

__all__ = [
    "GgufFile", "Imported", "RegistryModel", "folder_models", "from_compose", "from_llama_swap", "registry_models",
]  # fmt: skip
