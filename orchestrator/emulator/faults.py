"""Trouble on request: which faults a call or a run meets, decided by seed and rate."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from orchestrator.emulator.chance import draw
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.tables import read_table

# Often enough that a hundred requests meet every fault, rare enough that most calls work.
RATE_DEFAULT = 0.1


class Fault(StrEnum):
    """What can go wrong. Each is an independent draw per call; `hang` is drawn once per run."""

    ERROR_500 = "error_500"
    ERROR_503 = "error_503"
    ERROR_429 = "error_429"  # without any header that says when to come back
    SLOW = "slow"
    DROP_BEFORE = "drop_before"  # the connection dies and nothing was done
    DROP_AFTER = "drop_after"  # the work is done (and billed), the answer is lost
    HANG = "hang"  # a run (or batch) that never ends; a direct call that takes an hour
    BATCH_EXPIRES = "batch_expires"  # drawn per batch: it expires when a part of it is done
    ERROR_LINE = "error_line"  # drawn per line of a batch: it is answered with a 500
    MALFORMED = "malformed"  # the work is done, the answer is 200 with half a JSON
    WEBHOOK_LOST = "webhook_lost"  # this and the next four are drawn per event and endpoint
    WEBHOOK_DOUBLED = "webhook_doubled"  # sent twice, with the same webhook-id
    WEBHOOK_LATE = "webhook_late"  # by `webhook_late_seconds`
    WEBHOOK_OVERTAKEN = "webhook_overtaken"  # by the next one to the endpoint, if it is soon enough
    WEBHOOK_FORGED = "webhook_forged"  # beside the true one; another signature, or an old one again
    WEBHOOK_EARLY = "webhook_early"  # a create's answer waits for the webhook about its run


PER_WEBHOOK = frozenset(
    {
        Fault.WEBHOOK_LOST,
        Fault.WEBHOOK_DOUBLED,
        Fault.WEBHOOK_LATE,
        Fault.WEBHOOK_OVERTAKEN,
        Fault.WEBHOOK_FORGED,
    }
)

# Broken JSON is left out: no server does that every tenth time.
PRESET_ALL = tuple(fault for fault in Fault if fault is not Fault.MALFORMED)


class Faults:
    """Decides about faults; the same seed and the same key give the same decision."""

    def __init__(self, seed: int, rates: Mapping[str, float]) -> None:
        self._seed = seed
        self._rates = {Fault(name): rate for name, rate in rates.items() if rate > 0}
        others = PER_WEBHOOK | {Fault.HANG}
        self._per_call = tuple(fault for fault in self._rates if fault not in others)
        self._per_webhook = tuple(fault for fault in self._rates if fault in PER_WEBHOOK)

    def of_call(self, key: str) -> frozenset[Fault]:
        """The faults that the call known by this key meets."""
        if not self._per_call:
            return frozenset()
        return frozenset(fault for fault in self._per_call if self._happens(fault, key))

    def hangs(self, key: str) -> bool:
        """Whether the run (or direct call) known by this key never ends."""
        return Fault.HANG in self._rates and self._happens(Fault.HANG, key)

    def of_webhook(self, key: str) -> frozenset[Fault]:
        """The faults that the webhook known by this key meets."""
        return frozenset(fault for fault in self._per_webhook if self._happens(fault, key))

    def _happens(self, fault: Fault, key: str) -> bool:
        return draw(self._seed, "fault", fault, key) < self._rates[fault]


def parse_faults(text: str) -> dict[str, float]:
    """Read `NAME`, `NAME=RATE`, several with commas, `all`, or a file of name = rate.

    Raises EmulatorMistake that lists the known names.
    """
    path = Path(text)
    if path.suffix in {".toml", ".json"} or path.is_file():
        table = read_table(path)
        if not isinstance(table, dict):
            message = f"{path}: a table of fault = rate is needed, such as slow = 0.1"
            raise EmulatorMistake(message)
        given = [(str(name), rate) for name, rate in table.items()]
        return _rates(given, where=f"{path}: ")
    pieces = [piece.strip().partition("=") for piece in text.split(",") if piece.strip()]
    return _rates([(name, rate if equals else RATE_DEFAULT) for name, equals, rate in pieces])


def _rates(given: list[tuple[str, object]], where: str = "") -> dict[str, float]:
    rates: dict[str, float] = {}
    for name, rate in given:
        value = check_rate(name.strip(), rate, where)
        rates |= dict.fromkeys(PRESET_ALL if name.strip() == "all" else [name.strip()], value)
    return rates


def check_rate(name: str, rate: object, where: str = "") -> float:
    """The rate as a number between 0 and 1; EmulatorMistake when name or rate can't be meant."""
    if name != "all" and name not in list(Fault):
        message = f"{where}unknown fault {name!r}; known are {', '.join(Fault)} and all"
        raise EmulatorMistake(message)
    try:
        value = float(str(rate))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        message = f"{where}fault {name} has the rate {rate!r}; a number from 0 to 1 is needed"
        raise EmulatorMistake(message)
    return value
