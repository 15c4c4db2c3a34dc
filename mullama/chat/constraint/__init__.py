"""Builds the one grammar that the engine enforces from a response format and tools.

Pure: grammars are text in llguidance's Lark syntax. No client text reaches the grammar parser of llama.cpp.
"""

from mullama.chat.constraint.build import Built, build

__all__ = ["Built", "build"]
