"""Everything that can be set about the emulator, checked when it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from orchestrator.emulator.durations import Durations, Fixed, Lognormal
from orchestrator.emulator.faults import check_rate
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import Rule

QUEUE_SECONDS_DEFAULT: Durations = Fixed(0.2)
# Near the middle of what measured API calls take: half within 1.5 s, 1 in 40 above 5 s.
RUN_SECONDS_DEFAULT: Durations = Lognormal(1.5, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this emulator behaves. Raises EmulatorMistake for what can't be meant.

    Attributes:
        seed: All chance comes from it.
        rpm: Requests per minute and model; None is no limit.
        tpm: Tokens per minute and model; None is no limit.
        faults: Rate (0 to 1) by name of the fault, see faults.py.
        queue_seconds: How long a background run is queued.
        run_seconds: How long an answer takes from then on.
        rules: How the model answers; the first that matches counts.
        answers: Texts of answers by custom_id or by the last user text.
        api_key: The only key that is let in; None lets every key in.
        models: The only models there are; None means that every model exists.
        epoch: Unix seconds at the emulator's time 0.
        retention_seconds: How long after its end a run can be retrieved. The real service keeps
            background responses "roughly 10 minutes".
        poll_after_ms: Sent as `openai-poll-after-ms` with unfinished runs; None sends none.
        refused_count: Whether a call refused by the limit uses up a request. OpenAI says that
            unsuccessful requests contribute; a client that hammers then never gets through.
        checks_count: Whether retrieving and cancelling a run use up requests of its model.
        slow_seconds: What the fault `slow` adds.
        hang_seconds: What a direct call takes that hangs.
    """

    seed: int = 0
    rpm: int | None = None
    tpm: int | None = None
    faults: Mapping[str, float] = field(default_factory=dict)
    queue_seconds: Durations = QUEUE_SECONDS_DEFAULT
    run_seconds: Durations = RUN_SECONDS_DEFAULT
    rules: Sequence[Rule] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = None
    models: Sequence[str] | None = None
    epoch: float = 1_767_225_600.0  # the first second of 2026
    retention_seconds: float = 600.0
    poll_after_ms: int | None = None
    refused_count: bool = True
    checks_count: bool = True
    slow_seconds: float = 5.0
    hang_seconds: float = 3600.0

    def __post_init__(self) -> None:
        """Check each number and each name of a fault."""
        for name in ("rpm", "tpm"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                message = f"{name} must be 1 or more, got {limit}; leave it out for no limit"
                raise EmulatorMistake(message)
        for name in ("retention_seconds", "slow_seconds", "hang_seconds", "poll_after_ms"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= 0):
                message = f"{name} must be 0 or more, got {value}"
                raise EmulatorMistake(message)
        for name, rate in self.faults.items():
            check_rate(name, rate)
            if name == "all":
                message = "the fault all is short for several; use parse_faults to spell it out"
                raise EmulatorMistake(message)
