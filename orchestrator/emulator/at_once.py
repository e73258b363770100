"""Completions, embeddings, moderations: endpoints that take a text or many and know no tools."""

import hashlib
import struct
from base64 import b64encode
from collections.abc import Iterator, Sequence
from math import hypot
from typing import Any

import msgspec

from orchestrator.emulator.answers import Question, tokens_of
from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.conversation import check_tokens_max, refuse_stream
from orchestrator.emulator.direct import direct_seconds, finish_reason
from orchestrator.emulator.refusals import refuse_invalid, refuse_missing
from orchestrator.emulator.state import Route, State, Visit

DIMENSIONS_DEFAULT = 8  # enough to tell texts apart, and small on the wire
DIMENSIONS_MAX = 4096
INPUTS_MAX = 2048  # as the real embeddings endpoint has it
CHOICES_MAX = 128

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)

# A text, several, a text in tokens, several in tokens; told apart in _inputs.
Given = str | list[str | int | list[int]] | None


class CompletionRequest(msgspec.Struct):
    """The body of POST /completions."""

    model: str | None = None
    prompt: Given = None
    max_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None


class EmbeddingRequest(msgspec.Struct):
    """The body of POST /embeddings."""

    model: str | None = None
    input: Given = None
    dimensions: int | None = None
    encoding_format: str | None = None


class ModerationPart(msgspec.Struct):
    """A piece of what is to be moderated; images are never flagged here."""

    type: str = "text"
    text: str = ""


class ModerationRequest(msgspec.Struct):
    """The body of POST /moderations."""

    model: str = "omni-moderation-latest"
    input: str | list[str | ModerationPart] | None = None


def complete(state: State, visit: Visit) -> Reply:
    """POST /completions."""
    request = visit.read(CompletionRequest)
    model = state.check_model(request.model)
    refuse_stream(request.stream)
    check_tokens_max("max_tokens", request.max_tokens)
    if request.n is not None and not 1 <= request.n <= CHOICES_MAX:
        message = f"Invalid 'n': expected a value from 1 to {CHOICES_MAX}, got {request.n}."
        refuse_invalid(message, param="n")
    prompts = _inputs("prompt", request.prompt)
    tokens_in = sum(tokens for _, tokens in prompts)
    state.admit(visit, model, max(request.max_tokens or 0, tokens_in))
    answers = [
        state.answers.answer(
            Question(model, text, visit.body_digest, tokens_max=request.max_tokens)
        )
        for text, _ in prompts
    ]
    delay = max(direct_seconds(state, visit, answer) for answer in answers)
    said = [answer for answer in answers for _ in range(request.n or 1)]
    choices = [
        {
            "index": index,
            "text": answer.text,
            "logprobs": None,
            "finish_reason": finish_reason(answer),
        }
        for index, answer in enumerate(said)
    ]
    tokens_out = sum(answer.output_tokens for answer in said)
    completion_id = state.new_id("cmpl-", visit.key)
    state.created(visit, "completion", completion_id)
    state.books.spent(tokens_in, tokens_out)
    completion = {
        "id": completion_id,
        "object": "text_completion",
        "created": int(state.unix(visit.now)),
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    }
    return json_reply(completion, delay_seconds=delay)


def embed(state: State, visit: Visit) -> Reply:
    """POST /embeddings."""
    request = visit.read(EmbeddingRequest)
    model = state.check_model(request.model)
    inputs = _inputs("input", request.input)
    dimensions = DIMENSIONS_DEFAULT if request.dimensions is None else request.dimensions
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        message = f"Invalid 'dimensions': expected 1 to {DIMENSIONS_MAX}, got {dimensions}."
        refuse_invalid(message, param="dimensions")
    if request.encoding_format not in {None, "float", "base64"}:
        message = f"Invalid value: '{request.encoding_format}'. Expected 'float' or 'base64'."
        refuse_invalid(message, param="encoding_format")
    tokens_in = sum(tokens for _, tokens in inputs)
    state.admit(visit, model, tokens_in)
    answer = state.answers.answer(Question(model, inputs[-1][0], visit.body_digest))
    delay = direct_seconds(state, visit, answer, short=True)
    state.created(visit, "embedding")
    state.books.spent(tokens_in, 0)
    as_base64 = request.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _encoded(vector(text, dimensions))
            if as_base64
            else vector(text, dimensions),
        }
        for index, (text, _) in enumerate(inputs)
    ]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    reply = {"object": "list", "data": data, "model": model, "usage": usage}
    return json_reply(reply, delay_seconds=delay)


def moderate(state: State, visit: Visit) -> Reply:
    """POST /moderations. A text is flagged for every category that it names."""
    request = visit.read(ModerationRequest)
    model = state.check_model(request.model)
    if request.input is None:
        refuse_missing("input")
    given = [request.input] if isinstance(request.input, str) else request.input
    if not given:
        refuse_invalid("Invalid 'input': nothing to moderate.", param="input")
    texts = [one if isinstance(one, str) else one.text for one in given]
    if isinstance(given[0], ModerationPart):
        texts = ["\n".join(texts)]  # parts are one thing to judge, texts are many
    state.admit(visit, model, tokens_of(*texts))
    answer = state.answers.answer(Question(model, texts[-1], visit.body_digest))
    delay = direct_seconds(state, visit, answer, short=True)
    moderation_id = state.new_id("modr-", visit.key)
    state.created(visit, "moderation", moderation_id)
    results = [_judged(text.lower()) for text in texts]
    moderation = {"id": moderation_id, "model": model, "results": results}
    return json_reply(moderation, delay_seconds=delay)


ROUTES = (
    Route("POST", "/completions", complete),
    Route("POST", "/embeddings", embed),
    Route("POST", "/moderations", moderate),
)


def _inputs(param: str, given: Given) -> list[tuple[str, int]]:
    """Each input as a text and what it costs; a text in tokens counts its tokens."""
    if given is None:
        refuse_missing(param)
    several: Sequence[Any] = [given] if isinstance(given, str) else given
    if several and all(isinstance(one, int) for one in several):
        several = [several]
    if not several or len(several) > INPUTS_MAX or [] in several:
        message = f"'$.{param}' is invalid: 1 to {INPUTS_MAX} texts are needed, none of them empty."
        refuse_invalid(message, param=param)
    if len({type(one) for one in several}) > 1:
        refuse_invalid(f"'$.{param}' is invalid: texts and tokens are mixed.", param=param)
    return [
        (one, tokens_of(one))
        if isinstance(one, str)
        else (" ".join(str(token) for token in one), len(one))
        for one in several
    ]


def vector(text: str, dimensions: int) -> list[float]:
    """A vector of length 1 that follows from the text alone."""
    numbers = list(_numbers(text.encode(errors="surrogatepass"), dimensions))
    length = hypot(*numbers) or 1.0
    return [number / length for number in numbers]


def _numbers(text: bytes, count: int) -> Iterator[float]:
    block_numbers = 16
    for start in range(0, count, block_numbers):
        block = hashlib.blake2b(text, salt=start.to_bytes(8, "big")).digest()
        for number in struct.unpack("<16i", block)[: count - start]:
            yield number / 2**31


def _encoded(numbers: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _judged(text: str) -> dict[str, Any]:
    found = {name: name in text for name in CATEGORIES}
    return {
        "flagged": any(found.values()),
        "categories": found,
        "category_scores": {name: 0.98 if found[name] else 0.0001 for name in CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
