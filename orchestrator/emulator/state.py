"""What holds for every family: who may call, how much, what goes wrong, what is remembered."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from orchestrator.emulator.answers import Answer, Answers
from orchestrator.emulator.batch_life import Batches
from orchestrator.emulator.books import Books
from orchestrator.emulator.calls import Call, Reply
from orchestrator.emulator.chance import digest, draw
from orchestrator.emulator.creates import Created
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.durations import Durations, Fixed, Uniform
from orchestrator.emulator.faults import Fault, Faults
from orchestrator.emulator.file_store import Files
from orchestrator.emulator.limits import Limits
from orchestrator.emulator.refusals import (
    Refusal,
    refuse_by_fault,
    refuse_invalid,
    refuse_not_found,
    refuse_unauthorised,
)
from orchestrator.emulator.runs import Runs
from orchestrator.emulator.settings import Settings
from orchestrator.emulator.watch import Look, Watch
from orchestrator.emulator.webhooks import Webhooks
from orchestrator.emulator.writing import OPENAI, Api, Time, Writing, writing_of

# Embeddings, moderations and lists come back at once; measured ones take some 20 to 50 ms.
SHORT = Uniform(0.02, 0.05)

# What the limits call the calls that name no model, where those count at all.
CONTROL_POOL = "control"

BodyT = TypeVar("BodyT")
MemoryT = TypeVar("MemoryT")


@dataclass(slots=True)
class Visit:
    """One call on its way through: what it asks for, and what has been found out about it.

    `key` stands for this very call whatever else arrives: what it asks for, and that it is the
    nth time somebody asks it. `body_digest` stands for the body without its metadata, so that it is
    the same when a client labels each attempt. `ids` are all that the path names.
    """

    call: Call
    now: float
    route: str
    key: str
    body_digest: str
    faults: frozenset[Fault] = frozenset()
    run_id: str | None = None
    model: str | None = None
    metadata: Mapping[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    played: list[Fault] = field(default_factory=list)
    ids: tuple[str, ...] = ()
    created: Created | None = None

    def read(self, kind: type[BodyT]) -> BodyT:
        """The body as this struct; a 400 where it is no JSON or has wrong types."""
        try:
            return msgspec.json.decode(self.call.body, type=kind)
        except msgspec.ValidationError as error:
            refuse_invalid(f"Invalid type: {error}.", code="invalid_type")
        except (msgspec.DecodeError, UnicodeDecodeError):
            refuse_invalid(
                "We could not parse the JSON body of your request. The OpenAI API expects a JSON "
                "payload, but what was sent was not valid JSON."
            )


class State:
    """The pretend API's memory and its rules that hold for every family."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.deviations = frozenset(Deviation(name) for name in settings.deviations)
        self._writings: dict[Api | None, Writing] = {
            api: writing_of(api, self.deviations) for api in Api
        }
        self.faults = Faults(settings.seed, settings.faults)
        self.limits = Limits(settings.rpm, settings.tpm, refused_count=settings.refused_count)
        self.answers = Answers(settings.rules, settings.answers)
        self.runs = Runs(settings.retention_seconds)
        self.files = Files()
        self.batches = Batches(
            self.files, settings.batch_enqueued_tokens, settings.batches_per_hour
        )
        self.webhooks = Webhooks(settings, self.faults, self.deviations)
        self.watched = Watch()
        self.books = Books(self.runs, self.limits, self.files, self.batches, self.webhooks)
        self._times_asked: Counter[str] = Counter()
        self._memories: dict[type, Any] = {}

    def receive(
        self, call: Call, route: str, run_id: str | None, now: float, ids: tuple[str, ...] = ()
    ) -> Visit:
        """Find out what can be told about a call before anything is done for it."""
        body_digest = digest(_asked_for(call)) if call.body else ""
        what = digest(route, "/".join(ids) or run_id or "", body_digest)
        self._times_asked[what] += 1
        key = digest(what, self._times_asked[what])
        faults = self.faults.of_call(key)
        return Visit(call, now, route, key, body_digest, faults, run_id, ids=ids)

    def check_key(self, call: Call) -> None:
        """Let in who has a key (the right one, where one is set)."""
        bearer = call.headers.get("authorization", "").strip()
        given = bearer[7:].strip() if bearer[:7].lower() == "bearer " else ""
        given = given or call.headers.get("api-key", "").strip()  # as Azure's client sends it
        if not given:
            refuse_unauthorised(
                "You didn't provide an API key. You need to provide your API key in an "
                "Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
        if self.settings.api_key is not None and given != self.settings.api_key:
            refuse_unauthorised("Incorrect API key provided.")

    def memory(self, kind: type[MemoryT]) -> MemoryT:
        """What a family remembers: one of this kind, made when it is first asked for."""
        found = self._memories.get(kind)
        if found is None:
            found = self._memories[kind] = kind()
        remembered: MemoryT = found
        return remembered

    def check_beta(self, visit: Visit, api: str, value: str) -> None:
        """Let in who says that they know it is a beta."""
        given = visit.call.headers.get("openai-beta", "")
        if self.settings.beta_headers and value not in {one.strip() for one in given.split(",")}:
            refuse_invalid(
                f"You must provide the 'OpenAI-Beta' header to access the {api} API. Please try "
                f"again by setting the header 'OpenAI-Beta: {value}'.",
                code="invalid_beta",
            )

    def check_model(self, model: str | None) -> str:
        """The model, if one is named and exists."""
        if not model:
            refuse_invalid("you must provide a model parameter")
        if self.settings.models is not None and model not in self.settings.models:
            refuse_not_found(
                f"The model '{model}' does not exist or you do not have access to it.",
                code="model_not_found",
            )
        return model

    def admit(self, visit: Visit, model: str, tokens: int) -> None:
        """Charge the call to the model's limits and play the faults that do no work.

        Every counted call passes here once, after its body was checked and before its work is
        done. Raises the refusal.
        """
        visit.model = model
        visit.headers |= self.limits.admit(model, tokens, visit.now)
        self._play_refusals(visit)

    def admit_check(self, visit: Visit, model: str) -> None:
        """The same for a call about a run that exists already."""
        if self.settings.checks_count:
            self.admit(visit, model, 0)
        else:
            visit.model = model
            self._play_refusals(visit)

    def admit_control(self, visit: Visit) -> None:
        """The same for a call that is about no model; all of them share one limit, if any."""
        if self.settings.control_calls_count:
            self.admit(visit, CONTROL_POOL, 0)
        else:
            self._play_refusals(visit)

    def _play_refusals(self, visit: Visit) -> None:
        for fault, status in ((Fault.ERROR_500, 500), (Fault.ERROR_503, 503)):
            if fault in visit.faults:
                self.play(visit, fault)
                refuse_by_fault(status)
        if Fault.ERROR_429 in visit.faults:
            self.play(visit, Fault.ERROR_429)
            visit.headers.clear()
            message = "Rate limit reached for requests."
            raise Refusal(429, message, "requests", "rate_limit_exceeded")

    def play(self, visit: Visit, fault: Fault) -> None:
        """Note that the visit meets this fault."""
        visit.played.append(fault)
        self.books.met(fault.value)

    def created(self, visit: Visit, kind: str, run_id: str = "") -> None:
        """Note that the visit's work, which is to create something, was done."""
        visit.created = self.books.creates.add(
            kind, run_id, visit.body_digest, visit.metadata, visit.now
        )

    def hangs(self, visit: Visit) -> bool:
        """Whether what this visit creates never ends; noted where it does."""
        if self.faults.hangs(visit.key) and Fault.HANG not in visit.played:
            self.play(visit, Fault.HANG)
        return Fault.HANG in visit.played

    def watch(self, key: str, at: float, look: Look) -> None:
        """Look at something when its time has come, if there is anybody to be told of it."""
        if self.webhooks.endpoints:
            self.watched.put(key, at, look)

    def new_id(self, prefix: str, *parts: str | float, api: Api | None = None) -> str:
        """An id that is the same for the same parts and seed, as the API writes it."""
        digits = digest(self.settings.seed, prefix, *parts)
        return self._writings.get(api, OPENAI).id_of(prefix, digits)

    def seconds(self, durations: Durations, purpose: str, key: str) -> float:
        """A duration for this purpose of the thing known by this key."""
        if isinstance(durations, Fixed):
            return durations.value_seconds
        return durations.seconds(draw(self.settings.seed, purpose, key))

    def answer_seconds(self, answer: Answer, key: str) -> float:
        """How long the model takes to give this answer."""
        if answer.run_seconds is not None:
            return answer.run_seconds
        return self.seconds(self.settings.run_seconds, "run", key)

    def short_seconds(self, key: str) -> float:
        """How long a quick answer takes; as long as every other where durations are fixed."""
        fixed = isinstance(self.settings.run_seconds, Fixed)
        return self.seconds(self.settings.run_seconds if fixed else SHORT, "short", key)

    def unix(self, now: float) -> float:
        """The wall-clock time, in unix seconds."""
        return self.settings.epoch + now

    def time(self, now: float, api: Api) -> Time:
        """The wall-clock time as the API writes it."""
        return self._writings[api].time_of(self.unix(now))


Handler = Callable[[State, Visit], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """A place of the API: how it is reached and who answers there.

    `path` is written without /v1; a segment in braces stands for the id of what is asked about.
    """

    method: str
    path: str
    handler: Handler

    @property
    def name(self) -> str:
        """How the books call it."""
        return f"{self.method} /v1{self.path}"


def _asked_for(call: Call) -> bytes:
    """The body without its metadata, which is a label and changes nothing.

    Nor does the boundary of a form, which every client draws anew each time.
    """
    body = call.body
    kind, _, boundary = call.headers.get("content-type", "").partition("boundary=")
    if kind.startswith("multipart/") and boundary:
        return body.replace(boundary.strip('"').encode("latin-1", "replace"), b"")
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body
    return msgspec.json.encode(fields) if fields.pop("metadata", None) is not None else body
