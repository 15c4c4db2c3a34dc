"""Vectors and scores of many inputs: a request is divided into jobs, so that each answer of the worker is small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from mullama.chat.types import EmbedRequest, PromptInput, RerankRequest
from mullama.engines.base import Embed, Embedded
from mullama.errors import ContextOverflow, Invalid, TooLarge, Unsupported
from mullama.manifest.spec import Embedding
from mullama.offload import LARGE
from mullama.runtime.worker.inbox import Inbox
from mullama.runtime.worker.parent import WorkerClient
from mullama.struct import replace

T = TypeVar("T")

MOST_NUMBERS = 2**22
"""Numbers in the answer to one request."""
MOST_PAIR_CHARACTERS = 2**24
"""Characters of a rerank request; the query counts once for each document."""

_NUMBERS, _CHARACTERS = 2**17, 2**20  # of one job: its answer is decoded in some milliseconds


def with_declared(request: EmbedRequest, declared: Embedding) -> EmbedRequest:
    """Return the request with the model's prompt before each text, and the model's length of vectors.

    Token ids stay as they are: the client has read the complete input. Raise `Invalid` for a prompt that the model does
    not have, and for more numbers than it declares.
    """
    name, most = request.prompt or declared.default_prompt, declared.dimensions
    if name is not None and name not in declared.prompts:
        known = ", ".join(declared.prompts)
        raise Invalid(
            f"{request.model} has no prompt {name[:80]!r}",
            hint=f"its prompts are {known}" if known else "declare it in embedding.prompts of the model",
            field=request.prompt_place,
        )
    if most is not None and (request.dimensions or 0) > most:
        raise Invalid(
            f"dimensions is {request.dimensions}, but the vectors of {request.model} have {most} numbers",
            hint=f"ask for at most {most}, or leave it out",
            field="dimensions",
        )
    prompt = declared.prompts[name] if name is not None else ""
    inputs = tuple(_prompted(item, prompt) for item in request.inputs) if prompt else request.inputs
    return replace(request, inputs=inputs, dimensions=request.dimensions or most)


def _prompted(item: PromptInput, prompt: str) -> PromptInput:
    if isinstance(item, str):
        return prompt + item
    return (prompt + item[0], *item[1:]) if item and isinstance(item[0], str) else item


def embed_slices(inputs: Sequence[PromptInput], width: int, *, pooling: str = "") -> list[tuple[PromptInput, ...]]:
    """Return the inputs in slices, one for each job. `width` is the length of a vector; raise `TooLarge`.

    pooling: `none` makes an input a job of its own, because it has a vector for each token.
    """
    if len(inputs) * width > MOST_NUMBERS:
        raise TooLarge(
            f"{len(inputs)} inputs of a model with {width} numbers per vector are more than {MOST_NUMBERS} numbers",
            hint=f"send at most {MOST_NUMBERS // width} inputs in one request",
        )
    return _sliced(inputs, 1 if pooling == "none" else max(1, _NUMBERS // max(1, width)))


def rerank_slices(query: str, documents: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """Return the pairs of query and document in slices, one for each job; raise `TooLarge`."""
    characters = len(query) * len(documents) + sum(map(len, documents))
    if characters > MOST_PAIR_CHARACTERS:
        raise TooLarge(
            f"{len(documents)} documents, each with the query of {len(query)} characters, are {characters} characters",
            hint=f"send at most {MOST_PAIR_CHARACTERS} characters in one request, or fewer documents",
        )
    pairs = [(query, document) for document in documents]
    return _sliced(pairs, max(1, _CHARACTERS // max(1, characters // max(1, len(pairs)))))


async def tokenized(worker: WorkerClient, slices: Sequence[tuple[PromptInput, ...]]) -> list[tuple[PromptInput, ...]]:
    """Return the slices with the tokens of long texts. The worker answers this beside its other work."""
    return [tuple([await _tokenized(worker, item) for item in inputs]) for inputs in slices]


async def _tokenized(worker: WorkerClient, item: PromptInput) -> PromptInput:
    if not isinstance(item, str) or len(item) < LARGE:
        return item
    return await worker.tokenize(item, add_special=True, parse_special=False)


async def embed_all(
    worker: WorkerClient, jobs: Sequence[Embed], inbox: Inbox, request: EmbedRequest | RerankRequest
) -> Embedded:
    """Return the vectors of all jobs, computed one after the other, as those of one.

    Errors: see `embed`; a `ContextOverflow` names the field of the request.
    """
    found: list[Embedded] = []
    for job in jobs:
        try:
            found.append(await worker.embed(job, inbox=inbox, request=request))
            _check_size(found)
        except ContextOverflow as error:
            before = sum(len(embedded.rows or embedded.vectors) for embedded in found)
            index = before + (error.index or 0)
            place = _place(request, index)
            raise ContextOverflow(error.prompt_tokens, error.context_size, index=index, place=place) from error
    vectors = tuple(vector for embedded in found for vector in embedded.vectors)
    return Embedded(
        id=jobs[0].id,
        vectors=vectors,
        rows=tuple(count for embedded in found for count in embedded.rows),
        tokens=sum(embedded.tokens for embedded in found),
        engine_decodes=found[-1].engine_decodes,
        engine_requests=found[-1].engine_requests,
    )


def check_ids(inputs: Sequence[PromptInput], vocabulary: int, place: str) -> None:
    """Raise `Invalid` for a token id outside the vocabulary, and name the input. place: the field of the inputs."""
    for index, item in enumerate(inputs):
        if not item or isinstance(item, str):
            continue
        try:
            largest = max(item)  # quick for ids alone, which may be millions
        except TypeError:
            largest = max((part for part in item if not isinstance(part, str)), default=0)
        if isinstance(largest, int) and largest >= vocabulary:
            where = f"{place}[{index}]" if len(inputs) > 1 else place
            raise Invalid(
                f"{where}: token {item.index(largest)} is {largest}",
                hint=f"this model's tokens are 0 to {vocabulary - 1}",
                field=where,
            )


def _check_size(found: Sequence[Embedded]) -> None:
    """Raise `TooLarge` for vectors of tokens, whose number is known afterwards only."""
    numbers = sum(len(one.vectors) * len(one.vectors[0]) for one in found if one.rows and one.vectors)
    if numbers > MOST_NUMBERS:
        raise TooLarge(
            f"the vectors of the tokens are more than {MOST_NUMBERS} numbers", hint="send fewer or shorter inputs"
        )


def check_pooling(request: EmbedRequest, pooling: str) -> None:
    """Raise `Unsupported` if the model has a vector for each token and the answer has one for each input."""
    if request.pooled and pooling == "none":
        raise Unsupported(
            f'"{request.model}" gives a vector for each token, which this endpoint cannot return',
            hint="use /embedding, or change context.pooling in the manifest",
        )


def _place(request: EmbedRequest | RerankRequest, index: int) -> str:
    """Return the field of one input of a request."""
    if isinstance(request, RerankRequest):
        return f"documents[{index}]"
    return f"{request.place}[{index}]" if len(request.inputs) > 1 else request.place


def check_dimensions(request: EmbedRequest, width: int) -> None:
    """Raise `Invalid` for vectors that are wanted longer than those of the model."""
    if request.dimensions is not None and request.dimensions > width:
        raise Invalid(
            f"dimensions is {request.dimensions}, but the vectors of {request.model} have {width} numbers",
            hint=f"ask for at most {width}, or leave it out",
            field="dimensions",
        )


def shortened(vectors: Sequence[tuple[float, ...]], request: EmbedRequest) -> tuple[tuple[float, ...], ...]:
    """Return the first `dimensions` components of each vector, normalised again if the vectors were."""
    return tuple(_shortened(vector, request.dimensions, request.normalize) for vector in vectors)


def _shortened(vector: tuple[float, ...], dimensions: int | None, normalize: bool) -> tuple[float, ...]:
    if dimensions is None or dimensions >= len(vector):
        return vector
    head = vector[:dimensions]
    length = sum(x * x for x in head) ** 0.5
    return tuple(x / length for x in head) if normalize and length else head


def _sliced(items: Sequence[T], most: int) -> list[tuple[T, ...]]:
    """Return the items in slices of at most `most`; one empty slice for no items."""
    return [tuple(items[start : start + most]) for start in range(0, max(1, len(items)), most)]
