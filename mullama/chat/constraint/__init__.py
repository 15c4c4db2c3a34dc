"""From a response format and tools to the one grammar that the engine enforces.

Pure: grammars are text in llguidance's Lark syntax; nothing of a client's reaches llama.cpp's own parser.
"""

from mullama.chat.constraint.build import Built, build

__all__ = ["Built", "build"]
