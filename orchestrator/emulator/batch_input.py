"""Reads the input file of a batch: its lines, or what is wrong with them.

The codes are those that people have met; one wrong line is enough to fail the whole batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from orchestrator.emulator.answers import CHARACTERS_PER_TOKEN
from orchestrator.emulator.batch_life import LineError, Reading
from orchestrator.emulator.batch_work import Line
from orchestrator.emulator.chance import draw
from orchestrator.emulator.settings import Settings

EMBEDDING_INPUTS_MAX = 50_000  # "a maximum of 50,000 embedding inputs across all requests"

# A file of 50,000 wrong lines must not be answered with megabytes each time the batch is shown.
ERRORS_MAX = 100


class InputLine(msgspec.Struct):
    """A line of the input file."""

    custom_id: str | None = None
    method: str | None = None
    url: str | None = None
    body: msgspec.Raw = msgspec.Raw()


class LineBody(msgspec.Struct):
    """What the validation looks at in a line's body."""

    model: str | None = None
    background: Any = None


class _Wrong(Exception):  # noqa: N818 - a finding about a line, told in the batch's errors
    """A line makes the whole batch fail."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class InputFile:
    """Validates an input file, line by line, and keeps what the whole file needs to know."""

    def __init__(self, settings: Settings, batch_id: str, endpoint: str) -> None:
        self._settings = settings
        self._batch_id = batch_id
        self._endpoint = endpoint
        self._model: str | None = None
        self._lines: dict[str, Line] = {}
        self._errors: list[LineError] = []
        self._embedding_inputs = 0
        self._characters = 0

    def read(self, content: bytes) -> Reading:
        """The lines in the order of their work, which the seed shuffles; or the errors."""
        whole = self._whole_file(content)
        if whole is None:
            for number, text in _numbered(content):
                try:
                    self._take(number, text)
                except _Wrong as wrong:
                    self._errors.append(LineError(wrong.code, wrong.message, number, wrong.param))
                if len(self._errors) == ERRORS_MAX:
                    break
            if self._embedding_inputs > EMBEDDING_INPUTS_MAX:
                whole = _too_many("embedding inputs", self._embedding_inputs, EMBEDDING_INPUTS_MAX)
        if whole is not None:
            self._errors.append(whole)
        seed = self._settings.seed
        return Reading(
            lines=sorted(
                self._lines.values(),
                key=lambda line: draw(seed, "order", self._batch_id, line.custom_id),
            ),
            model=self._model,
            prompt_tokens=-(-self._characters // CHARACTERS_PER_TOKEN),
            errors=self._errors,
        )

    def _whole_file(self, content: bytes) -> LineError | None:
        if len(content) > self._settings.batch_bytes_max:
            message = (
                f"The batch input file is larger than the {self._settings.batch_bytes_max} bytes "
                f"that are the maximum: it has {len(content)}."
            )
            return LineError("file_too_large", message)
        count = sum(1 for _ in _numbered(content))
        if count == 0:
            return LineError("empty_file", "The batch input file is empty.")
        if count > self._settings.batch_lines_max:
            return _too_many("requests", count, self._settings.batch_lines_max)
        return None

    def _take(self, number: int, text: bytes) -> None:
        line = _decoded(text)
        for param in ("custom_id", "method", "url"):
            if not getattr(line, param):
                _missing(param)
        custom_id = line.custom_id or ""
        if custom_id in self._lines:
            message = (
                f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch."
            )
            _refuse("duplicate_custom_id", message, "custom_id")
        if line.method != "POST":
            message = f"Invalid method '{line.method}'. Only 'POST' is supported."
            _refuse("invalid_method", message, "method")
        if line.url != self._endpoint:
            message = (
                f"The URL '{line.url}' of this request does not match the endpoint of the batch, "
                f"'{self._endpoint}'."
            )
            _refuse("url_mismatch", message, "url")
        body = bytes(line.body)
        found = _decoded_body(body)
        self._check_model(found.model)
        if found.background:  # a batch is in the background already
            body = _without(body, "background")
        self._lines[custom_id] = Line(number, custom_id, body)
        if self._endpoint == "/v1/embeddings":
            self._embedding_inputs += _inputs(body)
        if self._settings.batch_enqueued_tokens is not None:
            self._characters += _prompt_characters(body)

    def _check_model(self, model: str | None) -> None:
        param = "body.model"
        if model is None:
            if self._endpoint != "/v1/moderations":
                _missing(param)
            return
        models = self._settings.models
        if models is not None and model not in models:
            message = f"The provided model '{model}' is not supported by the Batch API."
            _refuse("model_not_found", message, param)
        self._model = self._model or model
        if model != self._model:
            message = (
                f"The model '{model}' of this request is not '{self._model}' as in the requests "
                "before it. A batch has requests for one model only."
            )
            _refuse("model_mismatch", message, param)


def _refuse(code: str, message: str, param: str | None = None) -> NoReturn:
    raise _Wrong(code, message, param)


def _missing(param: str) -> NoReturn:
    _refuse("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def _too_many(what: str, count: int, count_max: int) -> LineError:
    message = f"The batch input file has {count} {what}; the maximum is {count_max}."
    return LineError("too_many_tasks", message)


def _numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, text in enumerate(content.split(b"\n"), 1):
        if text and not text.isspace():
            yield number, text


def _decoded(text: bytes) -> InputLine:
    try:
        return msgspec.json.decode(text, type=InputLine)
    except msgspec.ValidationError as error:
        _refuse("invalid_type", f"Invalid type: {error}.")
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "This line is not parseable as valid JSON."
        _refuse("invalid_json_line", message)


def _decoded_body(body: bytes) -> LineBody:
    if not body:
        _missing("body")
    try:
        return msgspec.json.decode(body, type=LineBody)
    except msgspec.ValidationError as error:
        _refuse("invalid_type", f"Invalid type: {error}.", "body")


def _without(body: bytes, name: str) -> bytes:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields.pop(name, None)
    return msgspec.json.encode(fields)


def _inputs(body: bytes) -> int:
    given = msgspec.json.decode(body).get("input")
    several = isinstance(given, list) and not all(isinstance(one, int) for one in given)
    return len(given) if several else 1


def _prompt_characters(body: bytes) -> int:
    fields = msgspec.json.decode(body)
    return _characters(
        [fields.get(name) for name in ("instructions", "input", "messages", "prompt")]
    )


def _characters(value: Any) -> int:
    """All that is said in a prompt, whatever its form; a token counts as many as it stands for."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_characters(value.get(name)) for name in ("content", "text", "output"))
    if isinstance(value, Sequence):
        return sum(_characters(one) for one in value)
    return CHARACTERS_PER_TOKEN if isinstance(value, int) else 0
