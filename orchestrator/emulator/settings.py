"""Everything that can be set about the emulator, checked when it is made."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from orchestrator.emulator.deviations import check_deviations
from orchestrator.emulator.durations import Durations, Fixed, Lognormal
from orchestrator.emulator.faults import check_rate
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import Rule
from orchestrator.emulator.webhook_endpoint import problem_with_secret, problem_with_url

QUEUE_SECONDS_DEFAULT: Durations = Fixed(0.2)
# Near the middle of what measured API calls take: half within 1.5 s, 1 in 40 above 5 s.
RUN_SECONDS_DEFAULT: Durations = Lognormal(1.5, 0.6)
BATCH_EXPIRES_SECONDS_DEFAULT = 86_400.0
BATCH_BYTES_MAX_DEFAULT = 200 * 1024 * 1024
# Of real batches, 11 of 13 were validating for at most 1 s and 10 of 14 finalizing.
BATCH_STEP_SECONDS_DEFAULT: Durations = Fixed(1.0)

NOT_NEGATIVE = (
    "retention_seconds",
    "slow_seconds",
    "hang_seconds",
    "poll_after_ms",
    "run_expires_seconds",
    "cancelling_seconds",
    "list_lag_seconds",
    "pending_call_lag_seconds",
    "turn_lag_seconds",
    "environment_seconds",
    "batch_expires_seconds",
    "webhook_late_seconds",
    "webhook_outage_from_seconds",
    "webhook_outage_until_seconds",
)
ONE_OR_MORE = (
    "batch_lines_at_once",
    "batch_expire_after_lines",
    "batch_enqueued_tokens",
    "batch_lines_max",
    "batch_bytes_max",
    "batches_per_hour",
)
BATCH_STUCK_IN = ("validating", "in_progress", "finalizing", "cancelling")


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
        run_expires_seconds: How long after its creation an Assistants run expires, tools included;
            None is never.
        cancelling_seconds: How long a cancelled Assistants run is `cancelling`, and a cancelled
            turn of an agent session still in progress.
        any_assistant: Whether a run may name an assistant that was never created.
        beta_headers: Whether Assistants and agent sessions want their `OpenAI-Beta` header.
        list_lag_seconds: How old the sessions in filtered lists are, new ones included.
        pending_call_lag_seconds: How long after a session shows a call its result is refused.
        turn_lag_seconds: How long after its input a session's turn is nowhere to be seen.
        environment_seconds: How long after a session waits for its environment that is connected;
            None is never.
        subagent_turns: Whether a failed turn of a subagent stands before each turn in lists.
        deviations: Names of what is otherwise than at OpenAI, see deviations.py.
        control_calls_count: Whether calls about files, batches and the like, which name no model,
            use up requests; if so, all of one pool.
        batch_validating_seconds: How long a batch is validating.
        batch_seconds: How long all lines of a batch take together, spread evenly; None works on
            `batch_lines_at_once` lines at a time, each as long as a direct answer takes.
        batch_lines_at_once: See `batch_seconds`.
        batch_finalizing_seconds: How long it is finalizing, before it is completed or expired.
        batch_cancelling_seconds: How long it is cancelling; the real service says up to 10 minutes.
        batch_expires_seconds: How long after its creation a batch expires.
        batch_expire_after_lines: A batch expires when so many of its lines are done.
        batch_stuck_in: The status that no batch leaves by itself (`validating`, `in_progress`,
            `finalizing`, `cancelling`), not even when its time is up.
        batch_enqueued_tokens: How many prompt tokens unfinished batches may have, per model.
        batch_lines_max: More lines in an input file fail the batch.
        batch_bytes_max: A bigger input file fails the batch.
        batches_per_hour: More are refused.
        webhook_url: An endpoint that is there from the start and is told of everything; on this
            machine only.
        webhook_secret: What it is signed with.
        webhook_retry_seconds: The gap after the first attempt; the next is twice as long, and so on
            for 72 hours.
        webhook_late_seconds: What the fault `webhook_late` adds, and how long `webhook_overtaken`
            waits to be.
        webhook_outage_from_seconds: From then on all webhooks are lost; None for never.
        webhook_outage_until_seconds: Until then; None for ever.
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
    run_expires_seconds: float | None = 600.0  # "about 10 minutes", as several people measured
    cancelling_seconds: float = 0.5
    any_assistant: bool = True
    beta_headers: bool = True
    list_lag_seconds: float = 0.0
    pending_call_lag_seconds: float = 0.0
    turn_lag_seconds: float = 0.0
    environment_seconds: float | None = None
    subagent_turns: bool = False
    deviations: Collection[str] = ()
    control_calls_count: bool = False
    batch_validating_seconds: Durations = BATCH_STEP_SECONDS_DEFAULT
    batch_seconds: Durations | None = None
    batch_lines_at_once: int = 50
    batch_finalizing_seconds: Durations = BATCH_STEP_SECONDS_DEFAULT
    batch_cancelling_seconds: Durations = BATCH_STEP_SECONDS_DEFAULT
    batch_expires_seconds: float = BATCH_EXPIRES_SECONDS_DEFAULT
    batch_expire_after_lines: int | None = None
    batch_stuck_in: str | None = None
    batch_enqueued_tokens: int | None = None
    batch_lines_max: int = 50_000
    batch_bytes_max: int = BATCH_BYTES_MAX_DEFAULT
    batches_per_hour: int = 2000
    webhook_url: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)
    webhook_retry_seconds: float = 5.0  # Standard Webhooks' own schedule begins with it
    webhook_late_seconds: float = 10.0
    webhook_outage_from_seconds: float | None = None
    webhook_outage_until_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check each number and each name of a fault."""
        for name in ("rpm", "tpm", *ONE_OR_MORE):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                message = f"{name} must be 1 or more, got {limit}; leave it out for no limit"
                raise EmulatorMistake(message)
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= 0):
                message = f"{name} must be 0 or more, got {value}"
                raise EmulatorMistake(message)
        if self.batch_stuck_in is not None and self.batch_stuck_in not in BATCH_STUCK_IN:
            known = ", ".join(BATCH_STUCK_IN)
            message = f"batch_stuck_in must be one of {known}, got {self.batch_stuck_in!r}"
            raise EmulatorMistake(message)
        self._check_webhooks()
        check_deviations(self.deviations)
        for name, rate in self.faults.items():
            check_rate(name, rate)
            if name == "all":
                message = "the fault all is short for several; use parse_faults to spell it out"
                raise EmulatorMistake(message)

    def _check_webhooks(self) -> None:
        if not (isfinite(self.webhook_retry_seconds) and self.webhook_retry_seconds > 0):
            message = f"webhook_retry_seconds must be above 0, got {self.webhook_retry_seconds}"
            raise EmulatorMistake(message)
        if self.webhook_url is None:
            return
        if problem := problem_with_url(self.webhook_url):
            message = f"webhook_url: {problem}"
            raise EmulatorMistake(message)
        if self.webhook_secret is None:
            message = "webhook_url needs a webhook_secret, which the receiver must know as well"
            raise EmulatorMistake(message)
        if problem := problem_with_secret(self.webhook_secret):
            message = f"webhook_secret can't be used: {problem}"
            raise EmulatorMistake(message)
