"""Judges webhook events: genuine or not, new or repeated, of a run or of something else.

Nothing here waits, and nothing is believed before its signature was: an event is decoded when it
is known who sent it. What it says is only that a run is worth a look, so an event that is lost,
late or out of order costs a delay at most.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from structlog.typing import FilteringBoundLogger

from orchestrator.ports import SignatureRefused, Verify

# Events carry a type and an id, some 300 bytes; this leaves room for what they may carry one day.
BODY_BYTES_MAX = 256 * 1024

# Ids of events that are known as repeats, the newest; some 20 MB. A sender tries again for up to
# 72 hours, with longer and longer pauses; at 1,000 events a minute this remembers 100 minutes.
IDS_MAX = 100_000
ID_CHARACTERS_MAX = 256

# Types that are counted by name, and what is kept of a name.
UNKNOWN_TYPES_MAX = 100
TYPE_CHARACTERS_MAX = 100

# Families of runs that send events. A new type among them is worth a look at the run, too.
KNOWN_TYPES = ("response.", "batch.", "agent.session.")


class Verdict(StrEnum):
    """What became of an event."""

    ACCEPTED = "accepted"  # handed on
    REPEATED = "repeated"  # it was handed on before
    UNKNOWN_TYPE = "unknown_type"  # genuine, but not about a run: another type, or no run's id
    FORGED = "forged"
    STALE = "stale"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"  # its body did not come in time
    WRONG_METHOD = "wrong_method"
    FAILED = "failed"  # genuine, but whoever takes events raised; it is welcome again


# Worth a warning: a wrong secret, a wrong clock, or somebody who tries. The others that are told at
# all happen to every server that strangers can reach.
_WARNED_OF = {Verdict.FORGED, Verdict.STALE}
_QUIET = {Verdict.ACCEPTED, Verdict.REPEATED, Verdict.UNKNOWN_TYPE, Verdict.FAILED}


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What a verified, new event says.

    Attributes:
        webhook_id: The same for every delivery of one event.
        type: For example `response.completed`.
        run_id: The id of the response, batch or session that it is about.
    """

    webhook_id: str
    type: str
    run_id: str


class _Data(msgspec.Struct):
    id: str = ""


class _Body(msgspec.Struct):
    type: str
    data: _Data = msgspec.field(default_factory=_Data)


_decoder = msgspec.json.Decoder(_Body)


def _nothing(_: str) -> None:
    """For a program that remembers no ids across processes."""


class Receiver:
    """Takes events, tells genuine ones from others, and hands each on once.

    To be used from the event loop's thread only.

    Args:
        verify: Tells whether an event is genuine and fresh.
        on_event: Called with each new event of a run. It must not wait. When it raises, the event
            is not remembered, and the sender is told to try again.
        seen_before: The ids of events that were handled by earlier processes, oldest first.
        on_new_id: Called with the id of each new event after it was handled.
        log: Where refusals are told: the first of a kind, the tenth, the hundredth, ...
    """

    def __init__(
        self,
        *,
        verify: Verify,
        on_event: Callable[[WebhookEvent], None],
        seen_before: Iterable[str] = (),
        on_new_id: Callable[[str], None] = _nothing,
        log: FilteringBoundLogger,
    ) -> None:
        self._verify = verify
        self._on_event = on_event
        self._on_new_id = on_new_id
        self.log = log
        # Not a dict: to find its first key takes ever longer while the oldest are being dropped.
        self._seen: OrderedDict[str, None] = OrderedDict()
        for webhook_id in seen_before:
            self._remember(webhook_id)
        self.counts: Counter[Verdict] = Counter()
        self.unknown_types: Counter[str] = Counter()

    def take(
        self, body: bytes, headers: Mapping[str, str], arrived_at: float | None = None
    ) -> Verdict:
        """Judge an event and hand it on when it is genuine and new. Raises nothing.

        Args:
            body: As it came, byte for byte.
            headers: Names in any case.
            arrived_at: For what waited in a queue: when it arrived there, in seconds since 1970,
                as the queue tells it.
        """
        return self.note(self._judge(body, headers, arrived_at))

    def note(self, verdict: Verdict) -> Verdict:
        """Count a verdict, and log it where that is worth a line; `take` does so itself."""
        self.counts[verdict] += 1
        if verdict not in _QUIET and _is_power_of_ten(self.counts[verdict]):
            tell = self.log.warning if verdict in _WARNED_OF else self.log.info
            tell("webhook.refused", why=str(verdict), times=self.counts[verdict])
        return verdict

    def _judge(self, body: bytes, headers: Mapping[str, str], arrived_at: float | None) -> Verdict:
        if len(body) > BODY_BYTES_MAX:
            return Verdict.TOO_LARGE
        # Lower case once for all: the id that is remembered is the one that was signed.
        named = {name.lower(): value for name, value in headers.items()}
        try:
            self._verify(body, named, arrived_at)
        except SignatureRefused as refused:
            return Verdict(refused.flaw.value)
        webhook_id = named.get("webhook-id", "")
        if not 0 < len(webhook_id) <= ID_CHARACTERS_MAX:
            return Verdict.MALFORMED
        if webhook_id in self._seen:
            return Verdict.REPEATED
        return self._handle(webhook_id, body)

    def _handle(self, webhook_id: str, body: bytes) -> Verdict:
        try:
            said = _decoder.decode(body)
        except msgspec.ValidationError:  # JSON of another shape
            said = _Body("")
        except (msgspec.DecodeError, RecursionError):
            return Verdict.MALFORMED
        ours = said.data.id != "" and said.type.startswith(KNOWN_TYPES)
        try:
            if ours:
                self._on_event(WebhookEvent(webhook_id, said.type, said.data.id))
            self._on_new_id(webhook_id)
        except Exception:  # whatever it was, the sender may try again
            if _is_power_of_ten(self.counts[Verdict.FAILED] + 1):
                self.log.exception("webhook.failed", type=said.type)
            return Verdict.FAILED
        self._remember(webhook_id)
        if ours:
            return Verdict.ACCEPTED
        self._count_type(said.type)
        return Verdict.UNKNOWN_TYPE

    def _remember(self, webhook_id: str) -> None:
        self._seen[webhook_id] = None
        if len(self._seen) > IDS_MAX:
            self._seen.popitem(last=False)

    def _count_type(self, name: str) -> None:
        name = name[:TYPE_CHARACTERS_MAX]
        if name in self.unknown_types or len(self.unknown_types) < UNKNOWN_TYPES_MAX:
            self.unknown_types[name] += 1
            if self.unknown_types[name] == 1:
                self.log.info("webhook.unknown_type", type=name)


def _is_power_of_ten(count: int) -> bool:
    return str(count).rstrip("0") == "1"
