"""Turns the settings of a model and a request into the prompt and the options of the engine.

Pure, and cheap for each request: templates are compiled with the settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from mullama.chat.constraint import Built, build
from mullama.chat.families import GENERIC, Family
from mullama.chat.media import ABILITIES, Medium
from mullama.chat.media.limits import check_count, check_file
from mullama.chat.media_marks import MEDIA_MARKER, MediaMarks, mark_media, media_of, split_prompt
from mullama.chat.model_settings import ModelSettings
from mullama.chat.reader import Reader, read
from mullama.chat.template import (
    ChatInput,
    Rendered,
    Thinking,
    contents_of,
)
from mullama.chat.tool_prompt import with_calls_written, with_tools_described
from mullama.chat.types import (
    DEFAULT_SAMPLING,
    ChatRequest,
    CompletionRequest,
    Constraint,
    MediaPart,
    Message,
    PromptInput,
    ReasoningLimit,
    Sampling,
    TextPart,
    TextRequest,
    Tool,
    text_message,
)
from mullama.errors import Invalid, Unsupported
from mullama.struct import Struct, replace

# A client sends a different number in this line with each request, which would invalidate every cached prefix.
_BILLING = re.compile(r"\Ax-anthropic-billing-header:[^\n]*\n*")
RAW = Family(name="raw", calls=GENERIC)


class Prepared(Struct, frozen=True, kw_only=True):
    """The prompt and the options of the engine, and the settings of the reader."""

    prompts: tuple[PromptInput, ...]
    """One for each prompt of the request; `n` answers share one."""
    joint: str = ""
    """A character of the prompt's text that is not part of the prompt, see `Rendered`."""
    media: tuple[Medium, ...] = ()
    """The media of the first prompt, in the order of their markers."""
    marker: str = ""
    """The character that stands for a medium in the first prompt; "" without media."""
    sampling: Sampling
    """Every field is set."""
    new_id: Callable[[], str]
    family: Family = RAW
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    suffix: str | None = None
    """Text after the completion (fill in the middle)."""
    context: tuple[int, ...] = ()
    """Tokens before the prompt (Ollama)."""
    want_tokens: bool = False
    """Return prompt and answer as tokens."""
    warnings: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    open_think: bool = False
    """The prompt ends inside the reasoning."""
    primed: str = ""
    """Text of the answer that the prompt already contains."""
    reasoning: ReasoningLimit | None = None
    """The bound on the reasoning."""

    @property
    def prompt(self) -> PromptInput:
        """Return the first prompt."""
        return self.prompts[0]

    @property
    def shown(self) -> str:
        """Return the text of the first prompt, "" for token ids."""
        text = self.prompt if isinstance(self.prompt, str) else ""
        text = text.replace(self.joint, "") if self.joint else text
        return text.replace(self.marker, MEDIA_MARKER) if self.marker else text

    def reader(self, choice: int = 0) -> Reader:
        """Return a new reader for one choice."""
        return read(
            self.family,
            self.new_id,
            tools=self.tools,
            open_think=self.open_think,
            choice=choice,
            primed=self.primed,
        )


def prepare(
    request: ChatRequest | CompletionRequest,
    settings: ModelSettings,
    now: float,
    new_id: Callable[[], str],
    defaults: Sampling = DEFAULT_SAMPLING,
) -> Prepared:
    """Return the prompt, the sampling options and the reader of a request.

    now: unix seconds, for templates that write a date. new_id: returns a unique id for a tool call. defaults: complete
    sampling settings, for fields that neither the request nor the manifest sets.

    Raises `Invalid` and its subclasses.
    """
    if isinstance(request, ChatRequest):
        made = _chat(request, settings, now, new_id)
    else:
        made = _completion(request, settings, now, new_id)
    return replace(
        made,
        sampling=request.sampling.over(settings.sampling).over(defaults),
        stop=tuple(dict.fromkeys((*settings.stop, *request.stop))),
        max_tokens=settings.max_tokens if request.max_tokens is None else request.max_tokens,
        warnings=(*request.warnings, *made.warnings),
    )


def shortened(request: ChatRequest, turns: int = 1) -> ChatRequest | None:
    """Return the conversation without its oldest turns, or None when not one turn would be left.

    System messages stay. A turn ends before the next user message, so that no tool result loses its call.
    """
    messages = request.messages
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    if len(users) <= turns:
        return None
    kept = [m for i, m in enumerate(messages) if i >= users[turns] or m.role == "system"]
    return replace(request, messages=tuple(kept))


def _chat(request: ChatRequest, settings: ModelSettings, now: float, new_id: Callable[[], str]) -> Prepared:
    if not request.messages:
        raise Invalid("messages is empty", hint="a conversation has at least one message", field="messages")
    _check_media(tuple(media_of(request.messages)), settings)
    tools = () if request.tool_choice.mode == "none" else request.tools
    whole = ChatInput(
        messages=_conversation(request.messages, settings), tools=tools, arguments=request.template_arguments
    )
    messages, marks = mark_media(whole.messages, _texts(whole, settings))
    messages = tuple(_without_billing(message) for message in messages)
    warnings: list[str] = []
    if not settings.template.traits.call:
        messages = tuple(with_calls_written(message, settings.family.calls) for message in messages)
    if tools and not settings.template.traits.tools:
        messages = with_tools_described(messages, tools, settings.family.calls)
        warnings.append("the chat template has no place for tools: the system prompt describes them")
    think = _think(request, settings, warnings)
    if not request.open_answer and settings.template.syntax == "go":
        raise Unsupported(
            "a Go template always ends with the start of the answer",
            hint="leave add_generation_prompt out, or declare a Jinja template",
            field="add_generation_prompt",
        )
    rendered = settings.render(
        ChatInput(
            messages=messages,
            tools=tools if settings.template.traits.tools else (),
            think=think,
            generate=request.open_answer,
            continue_final=request.continue_final,
            arguments=request.template_arguments,
            now=now,
        )
    )
    return _finished(request, settings, rendered, marks, new_id, tools=tools, think=think, warnings=warnings)


def _conversation(messages: Sequence[Message], settings: ModelSettings) -> tuple[Message, ...]:
    """Return the manifest's messages and the client's; a system message of the client replaces the manifest's."""
    count = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    lead = tuple(messages[:count])
    if not lead and settings.system:
        lead = (text_message("system", settings.system),)
    return (*lead, *settings.messages, *messages[count:])


def _finished(
    request: ChatRequest | CompletionRequest,
    settings: ModelSettings,
    rendered: Rendered,
    places: MediaMarks,
    new_id: Callable[[], str],
    *,
    tools: tuple[Tool, ...] = (),
    think: bool | str | None = None,
    warnings: Sequence[str] = (),
) -> Prepared:
    """Return the rendered prompt with its media, its reasoning opened or closed as requested, and its grammar."""
    family = settings.family
    text, media = places.placed(rendered.text)
    rendered = replace(rendered, text=text) if media else rendered
    opened = not isinstance(request, ChatRequest) or request.open_answer or request.continue_final
    text, inside, primed = rendered.text, rendered.open_think, ""
    if opened:
        text = _without_reasoning(rendered, settings, think)
    inside = inside and text is rendered.text
    parallel = settings.parallel_calls
    built = _built(request, family, tools, inside, parallel)
    if opened and built.from_start and not inside and (marks := _reasons_first(text, settings, think)):
        # The grammar becomes active after the reasoning, so the prompt must open the reasoning; the model might not.
        primed = marks.open if family.name == "harmony" else ""
        text, inside = text + marks.open + ("" if primed else "\n"), True
        built = _built(request, family, tools, inside, parallel)
    return Prepared(
        prompts=(text,),
        joint=rendered.joint,
        media=media,
        marker=places.marker,
        sampling=request.sampling,
        new_id=new_id,
        family=family,
        constraint=built.constraint,
        warnings=(*warnings, *built.warnings),
        tools=tools,
        open_think=inside,
        primed=primed,
        reasoning=_reasoning_limit(request, settings, inside),
    )


def _reasoning_limit(request: TextRequest, settings: ModelSettings, inside: bool) -> ReasoningLimit | None:
    """Return the bound on the reasoning: that of the request, at most that of the manifest."""
    marks, asked = settings.family.thinking, request.think_budget
    bounds = [bound for bound in (asked, settings.think_budget) if bound is not None and bound >= 0]
    if marks is None or not bounds:
        return None
    if settings.family.name == "harmony":
        closing = f"{marks.close}<|start|>assistant<|channel|>final<|message|>"
    else:
        closing = f"\n{marks.close.strip()}\n\n"
    return ReasoningLimit(
        tokens=min(bounds), open=marks.open.strip(), close=marks.close.strip(), closing=closing, inside=inside
    )


def _built(
    request: ChatRequest | CompletionRequest, family: Family, tools: tuple[Tool, ...], inside: bool, parallel: bool
) -> Built:
    chat = request if isinstance(request, ChatRequest) else None
    return build(
        family,
        format=request.format,
        tools=tools,
        choice=chat.tool_choice if chat else None,
        parallel=chat.parallel_tool_calls and parallel if chat else True,
        thinking=inside,
    )


def _without_reasoning(rendered: Rendered, settings: ModelSettings, think: bool | str | None) -> str:
    """Return the prompt, with the reasoning closed at its start where the template has no switch for it."""
    marks = settings.family.thinking
    told = think is not False or settings.template.traits.think != "always"
    if marks is None or told or settings.family.name == "harmony":
        return rendered.text
    opened = rendered.text.rstrip() if rendered.open_think else rendered.text + marks.open
    return f"{opened}\n\n{marks.close}\n\n"


def _reasons_first(text: str, settings: ModelSettings, think: bool | str | None) -> Thinking | None:
    """Return the marks of the reasoning that the model starts by itself, or None."""
    marks = settings.family.thinking
    if marks is None or (think is False and settings.family.name != "harmony"):
        return None
    return None if text.rstrip().endswith(marks.close.strip()) else marks


def _think(request: TextRequest, settings: ModelSettings, warnings: list[str]) -> bool | str | None:
    """Return the reasoning switch of the template.

    A value that the model does not support is an error, or a warning where the clients of the dialect send it to every
    model.
    """
    traits = settings.template.traits
    if request.think is None:
        return settings.think
    if request.think is False and traits.think == "none":
        return None
    if traits.think == "none":
        refusal = f'"{settings.name}" does not support thinking'
        if not request.think_optional:
            raise Unsupported(refusal, hint="send no think, or false", field="think")
        warnings.append(refusal)
        return None
    if isinstance(request.think, str) and not traits.levels:
        return True
    return request.think


def _completion(request: CompletionRequest, settings: ModelSettings, now: float, new_id: Callable[[], str]) -> Prepared:
    if request.template:
        raise Unsupported(
            "a template in a request is not rendered",
            hint="set `template` of the model in the manifest",
            field="template",
        )
    _check_media(request.media, settings)
    if not request.prompts:
        raise Invalid("prompt is empty", field="prompt")
    if request.raw or (request.suffix is not None and not settings.template.traits.suffix):
        return _raw(request, settings, new_id)
    [prompt] = request.prompts if len(request.prompts) == 1 else ("",)
    if not isinstance(prompt, str) or len(request.prompts) != 1:
        raise Invalid("only one text can be put into a template", hint="send one text, or set raw", field="prompt")
    warnings: list[str] = []
    system = settings.system if request.system is None else request.system
    lead = (text_message("system", system),) if system else ()
    think = _think(request, settings, warnings)
    question = Message(role="user", content=(*request.media, *((TextPart(text=prompt),) if prompt else ())))
    whole = ChatInput(messages=(*lead, *settings.messages, question), suffix=request.suffix or "", think=think, now=now)
    messages, marks = mark_media(whole.messages, _texts(whole, settings))
    rendered = settings.render(replace(whole, messages=messages))
    made = _finished(request, settings, rendered, marks, new_id, think=think, warnings=warnings)
    return replace(made, want_tokens=True, context=request.context)


def _raw(request: CompletionRequest, settings: ModelSettings, new_id: Callable[[], str]) -> Prepared:
    """Return the prompt unchanged; the answer is read as text alone."""
    if request.suffix is not None and not settings.fim:
        raise Unsupported(f'"{settings.name}" does not support insert', hint="its vocabulary cannot fill in the middle")
    built = build(RAW, format=request.format)
    prompts, marker, media = _split(request) if request.media else (request.prompts, "", ())
    return Prepared(
        prompts=prompts,
        media=media,
        marker=marker,
        sampling=request.sampling,
        new_id=new_id,
        constraint=built.constraint,
        suffix=request.suffix,
        context=request.context,
        want_tokens=not request.raw,
    )


def _without_billing(message: Message) -> Message:
    if message.role != "system" or not message.text.startswith("x-anthropic-billing-header:"):
        return message
    return replace(message, content=(TextPart(text=_BILLING.sub("", message.text)),))


def _texts(chat: ChatInput, settings: ModelSettings) -> Iterator[str]:
    """Yield every text that can be part of the prompt of a conversation."""
    yield from contents_of(replace(chat, arguments=(*settings.arguments, *chat.arguments)))
    yield settings.template.source


def _split(request: CompletionRequest) -> tuple[tuple[PromptInput, ...], str, tuple[Medium, ...]]:
    """Return the raw prompt of a request with media, its marker, and the media."""
    [prompt] = request.prompts if len(request.prompts) == 1 else (None,)
    if not isinstance(prompt, str):
        raise Unsupported(
            "media are read in one prompt of text alone", hint="send a request for each prompt", field="prompt"
        )
    if request.suffix is not None:
        raise Unsupported("a prompt with media has no suffix", hint="leave suffix out", field="suffix")
    text, marker, media = split_prompt(prompt, request.media)
    return (text,), marker, media


def check_kinds(parts: Iterable[MediaPart], settings: ModelSettings) -> None:
    """Raise `Unsupported` for the first medium of a kind that the model does not read."""
    for part in parts:
        if part.kind not in settings.media:
            raise Unsupported(
                f'"{settings.name}" does not support {ABILITIES[part.kind]}',
                hint="a model reads images and sound by a projector: `mmproj` in the manifest",
                field=part.place or "messages",
            )


def _check_media(parts: tuple[MediaPart, ...], settings: ModelSettings) -> None:
    """Raise `Unsupported` as `check_kinds`, and `Invalid` or `TooLarge` for files that `chat.media.limits` refuses."""
    check_kinds(parts, settings)
    check_count(len(parts), settings.media_limits)
    for part in parts:
        check_file(part.kind, part.data or b"", part.place, settings.media_limits)
