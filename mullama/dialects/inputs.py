"""Inputs that are text or token ids, in every form that clients send, and vectors in replies."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from mullama.chat.media import MOST_MEDIA
from mullama.chat.media_marks import MEDIA_MARKER
from mullama.chat.types import EmbedRequest, MediaPart, PromptInput, Vectors
from mullama.dialects import schema
from mullama.dialects.fields import Body, text, to_integer, to_list, unfit
from mullama.dialects.media import from_base64
from mullama.dialects.sampling import MOST_TOKEN
from mullama.errors import Invalid, TooLarge, Unsupported
from mullama.names import JSONValue

MOST_INPUTS = 2048
MOST_TOKENS = 2**21
MOST_ANSWERS = 256

MIXED_SCHEMA = schema.listed(schema.either(schema.COUNT, schema.STRING))
_OBJECT = schema.record("prompt_string", prompt_string=schema.either(schema.STRING, MIXED_SCHEMA))
_PARTS = schema.record("content", content=schema.either(schema.STRING, schema.listed(schema.RECORD)))
INPUT_SCHEMA = schema.either(
    schema.STRING,
    MIXED_SCHEMA,
    _OBJECT,
    schema.listed(schema.either(schema.STRING, MIXED_SCHEMA, _OBJECT), most=MOST_INPUTS),
)
EMBED_SCHEMA = schema.either(INPUT_SCHEMA, _PARTS, schema.listed(schema.either(INPUT_SCHEMA, _PARTS)))

# The names that servers of embeddings have for it: TEI and Sentence Transformers, Cohere and Voyage, Jina.
PROMPT_NAMES = tuple(text(name) for name in ("prompt_name", "input_type", "task"))

_IMAGE_MARK = re.compile(r"\[img-(\d{1,9})\]")

_FORMS = 'a string, token ids, token ids and strings, {"prompt_string": …}, or a list of these'


def inputs_of(value: JSONValue, path: str) -> tuple[PromptInput, ...]:
    """Return the inputs of one of llama-server's forms, or of a list of them; null has none.

    The forms are a string, a list of token ids that may have strings among them, and an object whose `prompt_string`
    has one of these. A list of strings is a list of inputs.
    """
    return _inputs(value, path, _one)


def embed_inputs_of(value: JSONValue, path: str) -> tuple[PromptInput, ...]:
    """Return the inputs of the forms of `inputs_of`, and of objects whose `content` has parts of text."""
    return _inputs(value, path, _one_or_parts)


def _inputs(value: JSONValue, path: str, convert: Callable[[JSONValue, str], PromptInput]) -> tuple[PromptInput, ...]:
    if value is None:
        return ()
    if isinstance(value, str | Mapping):
        return (convert(value, path),)
    if not isinstance(value, list | tuple):
        raise unfit(path, _FORMS)
    if any(isinstance(item, int | float) for item in value):
        return (_mixed(value, path),)
    return to_list(value, path, convert, MOST_INPUTS)


def check_filled(inputs: tuple[PromptInput, ...], path: str, value: JSONValue) -> None:
    """Raise `Invalid` for an empty input, which it names. `value` is what the inputs were read from."""
    if not inputs:
        raise Invalid(f"{path} must not be empty", field=path)
    for i, one in enumerate(inputs):
        if not one:
            place = f"{path}[{i}]" if isinstance(value, list | tuple) else path
            raise Invalid(f"{place} must not be empty", field=place)


def prompt_of(body: Body) -> tuple[str | None, str]:
    """Return the name of the prompt to put before each text, or None, and the field that has it."""
    for field in PROMPT_NAMES:
        if (name := body.get(field)) is not None:
            return name, field.name
    return None, PROMPT_NAMES[0].name


def prompts_of(value: JSONValue, path: str, n: int) -> tuple[PromptInput, ...]:
    """Return the prompts of a completion, one empty prompt for none; each gets `n` answers."""
    if isinstance(value, list | tuple) and not value:
        raise Invalid(f"{path} must not be empty", field=path)
    prompts = inputs_of(value, path) or ("",)
    if len(prompts) * n > MOST_ANSWERS:
        raise TooLarge(
            f"{path}: {len(prompts)} prompts with {n} answers each are more than {MOST_ANSWERS} answers",
            hint="send several requests",
        )
    return prompts


def prompt_with_media(body: Body) -> tuple[JSONValue, tuple[MediaPart, ...]]:
    """Return the prompt of a completion and its media, which the prompt marks with `MEDIA_MARKER`.

    The forms are llama-server's: `prompt` is an object with `prompt_string` and `multimodal_data`; earlier versions
    have `image_data` beside a text that holds `[img-ID]` for each image.
    """
    value = body.raw("prompt")
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0]
    if isinstance(value, Mapping) and value.get("multimodal_data"):
        place = "prompt.multimodal_data"
        parts = to_list(value["multimodal_data"], place, from_base64, MOST_MEDIA)
        return {"prompt_string": value.get("prompt_string")}, parts
    if isinstance(value, str) and body.raw("image_data"):
        return _with_images(value, to_list(body.raw("image_data"), "image_data", _numbered_image, MOST_MEDIA))
    return body.raw("prompt"), ()


def _with_images(text: str, images: tuple[tuple[int, MediaPart], ...]) -> tuple[str, tuple[MediaPart, ...]]:
    known = dict(images)
    used: list[MediaPart] = []

    def mark(match: re.Match[str]) -> str:
        if (part := known.get(int(match[1]))) is None:
            return match[0]
        used.append(part)
        return MEDIA_MARKER

    made = _IMAGE_MARK.sub(mark, text)
    if missing := [number for number, part in images if part not in used]:
        raise Invalid(
            f"the prompt has no [img-{missing[0]}]", hint="write it in the place of the image", field="prompt"
        )
    return made, tuple(used)


def _numbered_image(value: JSONValue, path: str) -> tuple[int, MediaPart]:
    body = Body(value, path)
    return to_integer(body.raw("id"), body.at("id"), 0, MOST_TOKEN), from_base64(body.raw("data"), body.at("data"))


def _one(value: JSONValue, path: str) -> PromptInput:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, str) for item in value):
            raise unfit(path, _FORMS)
        return _mixed(value, path)
    if isinstance(value, Mapping) and "prompt_string" in value:
        if value.get("multimodal_data") is not None:
            raise Unsupported(
                f"{path}.multimodal_data: images and sounds are read in a request with one prompt",
                hint="send a request for each prompt",
                field=f"{path}.multimodal_data",
            )
        return text_or_mixed(value["prompt_string"], f"{path}.prompt_string")
    raise unfit(path, _FORMS)


def _one_or_parts(value: JSONValue, path: str) -> PromptInput:
    if not isinstance(value, Mapping) or "content" not in value:
        return _one(value, path)
    content = value["content"]
    if isinstance(content, str):
        return content
    return "".join(to_list(content, f"{path}.content", _part_text, MOST_INPUTS))


def _part_text(value: JSONValue, path: str) -> str:
    """Return the text of a part, in the form of OpenAI's chat messages."""
    part = Body(value, path)
    if part.raw("type") not in ("text", "input_text"):
        kind = str(part.raw("type"))[:40]
        raise Unsupported(f"{path} of type {kind!r} cannot be embedded: only text can", field=path)
    return part.need(text("text"))


def text_or_mixed(value: JSONValue, path: str) -> PromptInput:
    """Return one text, or token ids and texts in any order."""
    if not isinstance(value, str | list | tuple):
        raise unfit(path, "a string, or a list of token ids and strings")
    return value if isinstance(value, str) else _mixed(value, path)


def _mixed(value: list[JSONValue] | tuple[JSONValue, ...], path: str) -> tuple[int | str, ...]:
    return to_list(value, path, _token_or_text, MOST_TOKENS)


def _token_or_text(value: JSONValue, path: str) -> int | str:
    return value if isinstance(value, str) else to_integer(value, path, 0, MOST_TOKEN)


def finite_vectors(result: Vectors, request: EmbedRequest) -> list[list[float]]:
    """Return the vectors as lists, or raise `Invalid` for an input whose vector is not finite."""
    inputs = [i for i, count in enumerate(result.rows) for _ in range(count)] or range(len(result.vectors))
    for i, vector in zip(inputs, result.vectors, strict=True):
        # The sum of 32-bit numbers is finite exactly if all of them are, and one call computes it.
        if not math.isfinite(sum(vector)):
            place = f"{request.place}[{i}]" if len(request.inputs) > 1 else request.place
            raise Invalid(
                f"the vector of {place} is not finite",
                field=place,
                hint="the model's arithmetic overflowed on this input only",
            )
    return [list(vector) for vector in result.vectors]
