"""One line of input: what it asks for and which body goes out, or what is wrong with it.

Rules:

- Pure: bytes in, a `Sendable` or a `LineError` out.
- A body's members are kept as the JSON text they came in, so numbers and key order survive. A body
  that needs nothing added or removed goes out as the very bytes of the line.
- Defaults fill what a line lacks and never replace what it says; they stand at the end.
- What the API is sure to refuse is refused here, where it costs nothing. What it may accept
  passes: servers differ, and a body is theirs to judge.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec

from orchestrator.adapters.request_file import jsontext
from orchestrator.adapters.request_file.jsontext import LineError, Raw
from orchestrator.core.families import (
    CHAT_URL,
    COMPLETIONS_URL,
    EMBEDDINGS_URL,
    MODERATIONS_URL,
    RESPONSES_URL,
    SESSIONS_URL,
    THREADS_RUNS_URL,
    URLS,
    URLS_BY_BATCH,
    family_for,
    thread_of,
)
from orchestrator.core.model import Family
from orchestrator.errors import SettingUnusable

# The API's own limit for custom_id is not documented; 512 keeps it usable as a key and in messages.
CUSTOM_ID_CHARACTERS_MAX = 512

# What a line says about the request, as opposed to what the API is told.
LINE_KEYS = frozenset({"custom_id", "method", "url"})

# Which member holds what the model is to work on; one of them must be there. A Responses body can
# do without `input` when the server already holds the conversation or a stored prompt.
WORK: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        RESPONSES_URL: ("input", "prompt", "previous_response_id", "conversation"),
        CHAT_URL: ("messages",),
        EMBEDDINGS_URL: ("input",),
        COMPLETIONS_URL: ("prompt",),
        MODERATIONS_URL: ("input",),
        THREADS_RUNS_URL: ("assistant_id",),
        SESSIONS_URL: ("input",),
    }
)

# These have no `metadata` of their own. Files of bare bodies carry it as a note to their reader
# (the cookbook's parallel processor takes it out before it sends), and the API refuses it.
URLS_WITHOUT_METADATA = frozenset({EMBEDDINGS_URL, COMPLETIONS_URL, MODERATIONS_URL})

URLS_WITH_SEVERAL_CHOICES = frozenset({CHAT_URL, COMPLETIONS_URL})

OUTPUT_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")

CHARACTERS_PER_TOKEN = 4  # the vendor's rule of thumb for English text

# Every way to write a url, slashes at the ends left out.
_KNOWN = {way.strip("/"): url for url in URLS for way in (url, url.removeprefix("/v1"))}

# Where a model is not the line's own affair but the assistant's or the agent's: the limits then
# hold for that one.
MODEL_ELSEWHERE: Mapping[Family, tuple[str, ...]] = MappingProxyType(
    {
        Family.ASSISTANTS: ("model", "assistant_id"),
        Family.AGENT_SESSIONS: ("model", "agent_id"),
    }
)

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What a job or the command line says for all lines that don't say it themselves.

    `url` is for lines without url, `model` and the members of `body` for bodies that lack them.
    With `via_batch`, what the Batch API takes goes there.

    Raises:
        SettingUnusable: The url is not one of ours, or a value can't be written as JSON.
    """

    url: str | None = None
    model: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    via_batch: bool = False
    members: Mapping[str, Raw] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = dict(self.body) if self.model is None else {**self.body, "model": self.model}
        members = {}
        for name, value in given.items():
            try:
                members[name] = Raw(jsontext.encoded(value))
            except (TypeError, ValueError, RecursionError) as error:
                raise SettingUnusable(
                    name=name, value=value, problem=str(error), cure="Give a value that JSON has."
                ) from None
        object.__setattr__(self, "members", members)
        if self.url is not None:
            try:
                object.__setattr__(self, "url", known_url(self.url))
            except LineError as error:
                raise SettingUnusable(
                    name="url", value=self.url, problem=error.problem, cure=error.cure
                ) from None


@dataclass(frozen=True, slots=True)
class Sendable:
    """A line that can be sent. `content` is the body as JSON text, completed by the defaults."""

    custom_id: str
    url: str
    family: Family
    model: str
    tokens: int
    content: bytes = field(repr=False)
    thread: str = ""
    via_batch: bool = False
    inputs: int = 1
    output_tokens: int = 0

    def digest(self) -> bytes:
        """Of what is sent; another one means that the line, or a default, was changed."""
        return blake2b(b"\n".join((self.url.encode(), self.content)), digest_size=8).digest()


def sendable(text: bytes, defaults: RequestDefaults, number: int) -> Sendable:
    """What the line asks for; `number` is its place in the file, from 1.

    Raises:
        LineError: The line can't be sent.
    """
    line = jsontext.members(text)
    custom_id = _custom_id(line)
    try:
        return _sendable(line, text, defaults, custom_id or f"line-{number}")
    except LineError as error:
        error.custom_id = custom_id
        raise


def _sendable(
    line: dict[str, Raw], text: bytes, defaults: RequestDefaults, custom_id: str
) -> Sendable:
    _check_method(line)
    bare = not jsontext.says(line, "body")
    if bare:
        given = text
        fields = {name: value for name, value in line.items() if name not in LINE_KEYS}
    else:
        given = bytes(line["body"])
        fields = _body_members(given)
    changed = bare and len(fields) < len(line)
    url = _url(_string(line, "url"), fields, defaults, bare=bare)
    if bare:
        changed = _make_bare_body_fit(fields, url) or changed
    by_batch = defaults.via_batch and url in URLS_BY_BATCH
    family = family_for(url, background=_is_background(fields) and not by_batch)
    changed = _complete(fields, defaults, family) or changed

    if by_batch:
        # A batch is in the background already.
        changed = fields.pop("background", None) is not None or changed
    model = _model(fields, family)
    _check_work(fields, url)
    _check_flags(fields, family)
    content = msgspec.json.encode(fields) if changed else given.strip()
    output = _output_tokens(fields, url)
    tokens = _prompt_tokens(content) + output
    model = sys.intern(model)
    inputs = _inputs(fields) if by_batch and url == EMBEDDINGS_URL else 1
    return Sendable(
        custom_id, url, family, model, tokens, content, thread_of(url), by_batch, inputs, output
    )


def known_url(said: str) -> str:
    """The url as the core knows it; "/v1" in front and a slash at the end are optional.

    Raises:
        LineError: There is no such url here.
    """
    if "://" in said:
        raise LineError(
            problem=f"the url {jsontext.shown(said)} is a full address",
            cure='Write only its path, for example "/v1/responses"; --base-url names the server.',
        )
    plain = said.strip().strip("/")
    if thread_of(on_thread := f"/v1/{plain.removeprefix('v1/')}"):
        return on_thread
    if (url := _KNOWN.get(plain)) is None:
        problem = f"the url {jsontext.shown(said)} is unknown"
        raise LineError(problem=problem, cure=f"Known are {', '.join(URLS)}.")
    return url


def _custom_id(line: dict[str, Raw]) -> str | None:
    if not jsontext.says(line, "custom_id"):
        return None
    raw = bytes(line["custom_id"])
    if not raw.startswith(b'"'):
        quoted = f'"{raw.decode()}"' if raw.isalnum() else '"..."'
        raise LineError(
            problem=f"the custom_id {jsontext.shown(raw.decode())} is not a string",
            cure=f'Write it in quotes: "custom_id": {quoted}.',
        )
    custom_id = jsontext.string(raw)
    if not custom_id:
        raise LineError(
            problem="the custom_id is empty",
            cure="Give it at least one character, or leave it out.",
        )
    if len(custom_id) > CUSTOM_ID_CHARACTERS_MAX:
        raise LineError(
            problem=f"the custom_id has {len(custom_id)} characters",
            cure=f"Give it at most {CUSTOM_ID_CHARACTERS_MAX}.",
        )
    if _CONTROL_CHARACTER.search(custom_id):
        raise LineError(
            problem="the custom_id has control characters in it, such as a tab or a line break",
            cure="Take them out.",
        )
    return custom_id


def _string(members: dict[str, Raw], name: str) -> str | None:
    """The text of a member, None where it is missing or null."""
    if not jsontext.says(members, name):
        return None
    raw = bytes(members[name])
    if not raw.startswith(b'"'):
        raise LineError(
            problem=f'"{name}" is {jsontext.kind(raw)}, not a string',
            cure=f'Write "{name}" as text in quotes.',
        )
    return jsontext.string(raw)


def _check_method(line: dict[str, Raw]) -> None:
    method = _string(line, "method")
    if method is not None and method.upper() != "POST":
        raise LineError(
            problem=f"the method {jsontext.shown(method)} can't be sent",
            cure='Write "POST", or leave it out.',
        )


def _body_members(text: bytes) -> dict[str, Raw]:
    if not text.startswith(b"{"):
        raise LineError(
            problem=f'"body" is {jsontext.kind(text)}, not an object',
            cure='Write it as {"model": ..., ...}, without quotes around it.',
        )
    return jsontext.members(text)


def _url(said: str | None, fields: dict[str, Raw], defaults: RequestDefaults, *, bare: bool) -> str:
    """Where the request goes: what the line says, what the defaults say, or what its body shows."""
    if said is not None:
        return known_url(said)
    if defaults.url is not None:
        return defaults.url
    if bare and jsontext.says(fields, "prompt"):
        return RESPONSES_URL
    if jsontext.says(fields, "messages"):
        return CHAT_URL
    if jsontext.says(fields, "input"):
        model = _string(fields, "model") or defaults.model or ""
        if "embedding" in model.lower():
            return EMBEDDINGS_URL
        return MODERATIONS_URL if "moderation" in model.lower() else RESPONSES_URL
    raise LineError(
        problem='there is no "url", and no "input" or "messages" to tell it by',
        cure='Write {"prompt": "..."}, or a body with "model" and "input", or a line in OpenAI '
        "Batch format; --url says where all lines go.",
    )


def _make_bare_body_fit(fields: dict[str, Raw], url: str) -> bool:
    """Turn a prompt into what the url takes and take notes out; whether there was such a thing."""
    changed = url in URLS_WITHOUT_METADATA and fields.pop("metadata", None) is not None
    prompt = bytes(fields.get("prompt", b""))
    if url == COMPLETIONS_URL or not prompt.startswith(b'"'):
        return changed
    on_thread = bool(thread_of(url))
    work = {CHAT_URL: "messages", THREADS_RUNS_URL: "thread"}.get(url, "input")
    work = "additional_messages" if on_thread else work
    if jsontext.says(fields, work):
        raise LineError(problem=f'there are both "prompt" and "{work}"', cure="Keep one of them.")
    del fields["prompt"]
    as_messages = b'[{"role":"user","content":%b}]' % prompt
    if url == THREADS_RUNS_URL:
        fields[work] = Raw(b'{"messages":%b}' % as_messages)
    else:
        fields[work] = Raw(as_messages if url == CHAT_URL or on_thread else prompt)
    return True


def _complete(fields: dict[str, Raw], defaults: RequestDefaults, family: Family) -> bool:
    """Add what the body lacks; whether it lacked anything."""
    changed = False
    for name, value in defaults.members.items():
        if name == "model" and family in MODEL_ELSEWHERE:
            continue
        # A model of null is no model; any other null may be meant.
        if name not in fields or (name == "model" and not jsontext.says(fields, "model")):
            fields[name] = value
            changed = True
    return changed


def _model(fields: dict[str, Raw], family: Family) -> str:
    if family in MODEL_ELSEWHERE:
        agent = bytes(fields.get("agent", b""))
        places = [jsontext.members(agent) if agent.startswith(b"{") else {}, fields]
        said = (_string(place, name) for place in places for name in MODEL_ELSEWHERE[family])
        return next(filter(None, said), family.value)
    model = _string(fields, "model")
    if not model:
        raise LineError(
            problem='"model" is missing',
            cure="Add it to the body, or name one for all lines with --model.",
        )
    return model


def _check_work(fields: dict[str, Raw], url: str) -> None:
    """There must be something to work on."""
    work = WORK[THREADS_RUNS_URL if thread_of(url) else url]
    for name in work:
        if jsontext.says(fields, name):
            # A stored prompt is an object; a text there is an `input` under the wrong name.
            if (url, name) == (RESPONSES_URL, "prompt") and bytes(fields[name])[:1] != b"{":
                continue
            return
    raise LineError(
        problem=f'"{work[0]}" is missing, which {url} needs', cure="Add it to the body."
    )


def _is_background(fields: dict[str, Raw]) -> bool:
    """Whether a response is to run in the background: it is, unless the body says false."""
    said = jsontext.flag(fields, "background")
    return said is None or said


def _check_flags(fields: dict[str, Raw], family: Family) -> None:
    if jsontext.flag(fields, "stream"):
        raise LineError(
            problem='"stream" is true, but results are fetched whole',
            cure='Remove "stream" from the body.',
        )
    if family is Family.RESPONSES and jsontext.flag(fields, "store") is False:
        raise LineError(
            problem='"store" is false, but a response in the background is always stored',
            cure='Add "background": false to the body, or remove "store".',
        )


def _inputs(fields: dict[str, Raw]) -> int:
    """How many texts are to be embedded; a list of numbers is one text, as tokens."""
    given = bytes(fields.get("input", b""))
    if not given.startswith(b"["):
        return 1
    texts = msgspec.json.decode(given, type=list[Raw])
    if texts and bytes(texts[0])[:1] in {b'"', b"["}:
        return len(texts)
    return 1


def _prompt_tokens(content: bytes) -> int:
    characters = len(content) if content.isascii() else len(content.decode())
    return -(-characters // CHARACTERS_PER_TOKEN)


def _output_tokens(fields: dict[str, Raw], url: str) -> int:
    """The output that the body allows, of all choices; 0 when it names no limit."""
    choices = jsontext.count(fields, "n") if url in URLS_WITH_SEVERAL_CHOICES else 0
    output = next(filter(None, (jsontext.count(fields, name) for name in OUTPUT_LIMITS)), 0)
    return output * max(1, choices)
