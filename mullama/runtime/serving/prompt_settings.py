"""A model's settings for prompts, from the manifest, the defaults of the weights and the GGUF header, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mullama.chat.model_settings import ModelSettings, opening, settings_for
from mullama.chat.template import ChatInput, ChatTemplate, Rendered, SpecialTexts, declared_prefix
from mullama.chat.tool_prompt import with_tools_described
from mullama.chat.transcription.prompts import TranscriptionSettings, prompt_for
from mullama.chat.types import Message, Sampling, Tool, text_message
from mullama.errors import Invalid, MullamaError
from mullama.manifest.spec import Model
from mullama.manifest.tree import block_to_tree
from mullama.names import JSONValue
from mullama.plan.observed import KnownFiles
from mullama.struct import field_names, replace
from mullama.weights.facts import WeightFacts
from mullama.weights.stored import Defaults

Source = Literal["manifest", "source", "gguf", "none"]
_NO_DEFAULTS = Defaults()
_SAMPLING = frozenset(field_names(Sampling))


def model_settings(name: str, model: Model, files: KnownFiles) -> ModelSettings:
    """Return the settings on which requests to the model are based. Raises `Invalid` for an unusable template."""
    defaults = files.weights.defaults if files.weights else _NO_DEFAULTS
    text, syntax, _ = chosen_template(model, files)
    special = SpecialTexts(bos=special_text(files.facts, "bos"), eos=special_text(files.facts, "eos"))
    parameters = {**defaults.parameters, **_declared_parameters(model)}
    try:
        made = settings_for(
            name,
            text,
            syntax=syntax,
            special=special,
            control=(files.facts.control or ()) if files.facts else (),
            system=model.system if model.system is not None else (defaults.system or None),
            messages=_messages(model, defaults),
            sampling=_sampling(parameters),
            stop=_stops(parameters),
            max_tokens=_integer(parameters.get("num_predict")),
            fim=bool(files.facts and files.facts.token("fim_pre")),
            think_budget=model.thinking.budget,
            arguments=tuple(model.template_arguments.items()),
            parallel_calls=model.tools.parallel,
        )
    except MullamaError as error:
        raise Invalid(f"{name}: the chat template cannot be used: {error.message}", hint=error.hint) from error
    _check_arguments(name, model, made.template)
    return replace(made, think=_default_think(name, model, made.template))


def _check_arguments(name: str, model: Model, template: ChatTemplate) -> None:
    """Raise `Invalid` for an argument that the template does not read."""
    for argument in model.template_arguments:
        if argument not in template.arguments:
            raise Invalid(
                f"{name}: template_arguments.{argument} is not an argument of its chat template",
                hint=f"one of {', '.join(sorted(template.arguments))}",
                field=f"template_arguments.{argument}",
            )


def transcription_settings(model: Model, projector: str) -> TranscriptionSettings:
    """Return how a model writes down speech. projector: the type of its projector of sound."""
    block = model.transcription
    voice = block.voice
    return TranscriptionSettings(
        only=model.task == "transcription",
        prompt=prompt_for(projector, block.instruction, block.translation),
        language=block.language or "",
        window=block.window,
        overlap=block.overlap,
        detector=voice.detector,
        threshold=voice.threshold,
        speech=voice.speech,
        silence=voice.silence,
        pad=voice.pad,
    )


def _default_think(name: str, model: Model, template: ChatTemplate) -> bool | str | None:
    """Return the reasoning of requests that do not choose; None for the default of the template.

    Raises `Invalid` for an effort of a template without reasoning.
    """
    default = model.thinking.default
    if default == "auto" or (default == "none" and template.traits.think == "none"):
        return None
    if default == "none":
        return False
    if template.traits.think == "none":
        raise Invalid(
            f"{name}: thinking.default is {default}, and the chat template has no reasoning",
            hint="leave thinking out, or declare a template with reasoning",
            field="thinking.default",
        )
    return default if template.traits.levels else True


def chosen_template(model: Model, files: KnownFiles) -> tuple[str, str, Source]:
    """Return (text, syntax, source): of the manifest, the GGUF header (Jinja), the registry (Go), or none."""
    if model.template is not None:
        return model.template.text or "", model.template.syntax, "manifest"
    if files.facts is not None and files.facts.template:
        return files.facts.template, "jinja", "gguf"
    if files.weights is not None and files.weights.defaults.template:
        return files.weights.defaults.template, "go", "source"
    return "", "jinja", "none"


def effective_defaults(model: Model, files: KnownFiles) -> Defaults:
    """Return the values for requests that set none: of the manifest, else of the weights."""
    stored = files.weights.defaults if files.weights else _NO_DEFAULTS
    found = (files.weights.license if files.weights else "") or (files.facts.license if files.facts else "")
    return Defaults(
        template=chosen_template(model, files)[0],
        system=model.system if model.system is not None else stored.system,
        parameters={**stored.parameters, **_declared_parameters(model)},
        messages=tuple((m.role, m.content) for m in model.messages) or stored.messages,
        license=(model.license,) if model.license else stored.license or ((found,) if found else ()),
    )


def warm_prefix(settings: ModelSettings, tools: Sequence[Tool] = ()) -> Rendered:
    """Return the text with which every conversation begins, to compute it before the first request; "" for none.

    tools: those that the server adds to every conversation, in their order there.
    """
    if not settings.system and not settings.messages and not tools:
        return Rendered(text="")
    messages = opening(settings)
    if tools and not settings.template.traits.tools:
        return declared_prefix(settings, with_tools_described(messages, tools, settings.family.calls))
    return declared_prefix(settings, messages, tools)


def probe_prompt(settings: ModelSettings, prompt: str, *, answered: bool) -> Rendered:
    """Return a prompt that tests whether the model generates. answered: a test reads the answer.

    The template is rendered in any case, which is a part of the test. Without a declared prompt or beginning its text
    is not computed: many templates add a system message, whose tokens took a tenth of the start of a small model.
    """
    declared = opening(settings)
    rendered = settings.render(ChatInput(messages=(*declared, text_message("user", prompt or "Say ok."))))
    return rendered if prompt or answered or declared else Rendered(text="ok")


def capabilities(settings: ModelSettings, facts: WeightFacts | None) -> tuple[str, ...]:
    """Return the published capabilities, of the template, the vocabulary and the weights."""
    own = facts.capabilities if facts else ()
    if "embedding" in own and "completion" not in own:
        return ("embedding",)
    extra = tuple(c for c in own if c in ("embedding", "rerank"))
    return (*settings.capabilities, *extra)


def thinking_levels(settings: ModelSettings) -> tuple[bool | str, ...]:
    """Return the values of `think`, the default first: named efforts, true and false, or only false."""
    levels = _levels(settings.template)
    return tuple(sorted(levels, key=lambda level: level != settings.think))


def _levels(template: ChatTemplate) -> tuple[bool | str, ...]:
    if template.traits.levels:
        return tuple(sorted(template.traits.levels, key=lambda level: level != "medium"))
    if template.traits.think == "none":
        return (False,)
    if template.traits.think == "always":
        return (True, False)
    default = ChatInput(messages=(text_message("user", "Hello"),))
    same = template.render(default) == template.render(replace(default, think=False))
    return (False, True) if same else (True, False)


def special_text(facts: WeightFacts | None, role: str) -> str:
    """Return the text of a special token; "" for none."""
    token = facts.token(role) if facts else None
    return token.text if token else ""


def _messages(model: Model, defaults: Defaults) -> tuple[Message, ...]:
    if model.messages:
        return tuple(text_message(m.role, m.content) for m in model.messages)
    return tuple(text_message(_role(role), text) for role, text in defaults.messages)


def _role(role: str) -> Literal["system", "user", "assistant"]:
    match role:
        case "system" | "user" | "assistant":
            return role
        case _:
            raise Invalid(f"{role!r} is not a role", hint="system, user or assistant")


def _declared_parameters(model: Model) -> dict[str, JSONValue]:
    """Return the parameters that the manifest sets."""
    tree = block_to_tree(model.parameters)
    return {name: value for name, value in tree.items() if value not in (None, [])}


def _sampling(parameters: Mapping[str, JSONValue]) -> Sampling:
    known = {name: value for name, value in parameters.items() if name in _SAMPLING}
    return Sampling(**known)  # type: ignore[arg-type]


def _stops(parameters: Mapping[str, JSONValue]) -> tuple[str, ...]:
    stop = parameters.get("stop")
    if isinstance(stop, str):
        return (stop,)
    return tuple(str(item) for item in stop) if isinstance(stop, list | tuple) else ()


def _integer(value: JSONValue) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
