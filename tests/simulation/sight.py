"""What a call is about, as a server can see it: what it creates, which tool calls it answers.

Each request asks for an order of its own, which is its custom_id too, so it is known by its text.
"""

import json
import re
from dataclasses import dataclass, field
from enum import Enum, auto

ORDER = re.compile(rb"O-\d+")
FIRST_ID = re.compile(rb'"id":\s*"([^"]+)"')


class Kind(Enum):
    """What a call is for."""

    CREATE = auto()
    UPLOAD = auto()
    CREATE_BATCH = auto()
    SUBMIT = auto()
    OTHER = auto()


@dataclass(slots=True)
class Sight:
    """A call: the orders that it is about, and the tool calls that it answers, by order."""

    kind: Kind
    orders: tuple[str, ...] = ()
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    file_id: str = ""


class Eyes:
    """Remembers which thread, session and file is about which order."""

    def __init__(self):
        self._order_of: dict[str, str] = {}
        self._lines_of: dict[str, Sight] = {}

    def look(self, call) -> Sight:  # noqa: PLR0911 - one for each place
        """What a call is about."""
        segments = call.path.strip("/").split("/")[1:]
        if call.method != "POST":
            orders = dict.fromkeys(order for each in segments for order in self._known(each))
            return Sight(Kind.OTHER, tuple(orders))
        match segments:
            case ["responses" | "embeddings"] | ["chat", "completions"]:
                return self._at_once(call.body)
            case ["threads"] | ["threads", "runs"]:
                return Sight(Kind.CREATE, _orders(call.body))
            case ["threads", thread, "runs"]:
                return Sight(Kind.CREATE, self._known(thread))
            case ["threads", _, "runs", run, "submit_tool_outputs"]:
                told = json.loads(call.body)["tool_outputs"]
                return self._submission(run, [one["tool_call_id"] for one in told])
            case ["agents", "sessions"]:
                return Sight(Kind.CREATE, _orders(call.body))
            case ["agents", "sessions", session, "events"]:
                events = json.loads(call.body)["events"]
                told = [event["call_id"] for event in events if "call_id" in event]
                return self._submission(session, told) if told else Sight(Kind.OTHER)
            case ["files"]:
                return self._lines(call.body)
            case ["batches"]:
                file_id = json.loads(call.body)["input_file_id"]
                lines = self._lines_of[file_id]
                return Sight(Kind.CREATE_BATCH, lines.orders, lines.answers, file_id)
        return Sight(Kind.OTHER)

    def remember(self, sight, call, reply):
        """The ids that a reply gives to what a call was about; also where it never arrives."""
        found = FIRST_ID.search(reply.body)
        if not (200 <= reply.status < 300 and found):
            return ""
        new_id = found[1].decode()
        if sight.kind is Kind.UPLOAD:
            self._lines_of[new_id] = sight
        elif sight.orders and sight.kind in {Kind.CREATE, Kind.SUBMIT}:
            self._order_of[new_id] = sight.orders[0]
        return new_id

    def _known(self, name):
        return (self._order_of[name],) if name in self._order_of else ()

    def _submission(self, name, told):
        orders = self._known(name)
        return Sight(Kind.SUBMIT, orders, dict.fromkeys(orders, tuple(told)))

    def _at_once(self, body, orders=None):
        fields = json.loads(body)
        told = _told_in(fields)
        if not told:
            return Sight(Kind.CREATE, orders or _orders(body))
        previous = fields.get("previous_response_id")
        orders = orders or (self._known(previous) if previous else _orders(body))
        return Sight(Kind.SUBMIT, orders, dict.fromkeys(orders, told))

    def _lines(self, body):
        """Of a form with a file in it, the lines of that file."""
        lines = [line for line in body.split(b"\n") if line.startswith(b'{"custom_id"')]
        sights = [self._line(json.loads(line)) for line in lines]
        answers = {order: told for sight in sights for order, told in sight.answers.items()}
        return Sight(Kind.UPLOAD, tuple(sight.orders[0] for sight in sights), answers)

    def _line(self, line):
        body = json.dumps(line["body"]).encode()
        return self._at_once(body, _orders(body)[:1])


def _orders(body):
    return tuple(dict.fromkeys(found.decode() for found in ORDER.findall(body)))


def _told_in(fields):
    """The tool calls that a body answers, all that are in the conversation."""
    given = fields.get("input") if isinstance(fields.get("input"), list) else []
    told = [one["call_id"] for one in given if one.get("type") == "function_call_output"]
    messages = fields.get("messages") or []
    return (*told, *(one["tool_call_id"] for one in messages if one.get("role") == "tool"))
