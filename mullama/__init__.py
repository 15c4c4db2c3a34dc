"""mullama: the declarative way to run local LLMs."""

__version__ = "0.1.0"
