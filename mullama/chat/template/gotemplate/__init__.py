"""Templates in Go's text/template syntax, as Modelfiles carry them, with Ollama's rules for conversations."""

from mullama.chat.template.gotemplate.render import GoTemplate, compile_go

__all__ = ["GoTemplate", "compile_go"]
