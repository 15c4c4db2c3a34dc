"""Modelfiles and Mullamafiles: parse, convert to and from models of the manifest, render."""

from mullama.manifest.modelfile.convert import from_tree, lost_by_ollama, render_modelfile, to_tree
from mullama.manifest.modelfile.lines import decode
from mullama.manifest.modelfile.parse import parse_modelfile
from mullama.manifest.modelfile.spec import NAMES, ModelfileSpec, ReadModelfile

__all__ = [
    "NAMES",
    "ModelfileSpec",
    "ReadModelfile",
    "decode",
    "from_tree",
    "lost_by_ollama",
    "parse_modelfile",
    "render_modelfile",
    "to_tree",
]
