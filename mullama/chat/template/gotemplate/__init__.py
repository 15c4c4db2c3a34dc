"""Templates in the syntax of Go's text/template, as Modelfiles contain them, with Ollama's rules for conversations."""

from mullama.chat.template.gotemplate.render import GoTemplate, compile_go

__all__ = ["GoTemplate", "compile_go"]
