"""What a user may set, with units, ranges and defaults; checked before anything is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from orchestrator.core.rules import Rules
from orchestrator.errors import SettingUnusable

# The lane of all checks, where they have a limit of their own. No model has such a name.
CHECKS_LANE = "(checks)"

INFINITE = float("inf")

# One call in 16 hours; what is smaller is a slip, and its reciprocal overflows.
NUMBER_MIN = 0.001
BATCH = "batch"
RETRY, GIVE_UP = "retry", "give-up"

# A run in flight takes about half a kilobyte. Batches hold 50,000 requests each.
IN_FLIGHT = 1_000
IN_FLIGHT_BY_BATCH = 250_000

# How late an end is noticed at most when its webhook was lost. A background response is kept for
# ten minutes; half of that leaves room for checks that fail.
WEBHOOK_GAP_SECONDS = 300.0

# What may be 0 or is no amount at all.
NO_AMOUNTS = frozenset({"seed", "via", "direct_below", "same_failures_max", "lost_creates"})

# Whole numbers that may be 0.
COUNTS = ("direct_below", "same_failures_max")

ONLY_BY_BATCH: Mapping[str, object] = MappingProxyType(
    {
        "enqueued_tokens": None,
        "batch_lines": Rules.batch_lines_max,
        "direct_below": Rules.batch_direct_below,
        "delete_files": False,
    }
)

WHOLE = frozenset(
    {
        "connections",
        "max_in_flight",
        "tools_at_once",
        "turns_max",
        "attempts_max",
        "enqueued_tokens",
        "batch_lines",
        "max_tokens",
    }
)
MAY_BE_ENDLESS = frozenset(
    {
        "deadline_seconds",
        "run_deadline_seconds",
        "execution_deadline_seconds",
        "tool_timeout_seconds",
    }
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an orchestrator treats the server and its runs.

    Raises:
        SettingUnusable: A value is out of range.
    """

    rpm: float | None = None  # requests per minute of each model; None: as the server's headers say
    tpm: float | None = None  # tokens per minute of each model; None likewise
    checks_rpm: float | None = None  # status checks per minute; None: they count against `rpm`
    check_price_seconds: float = Rules.check_price_seconds  # of delay that one check is worth
    connections: int = 32  # calls that may be out at the same time
    max_in_flight: int | None = None  # requests at the same time; None: 1,000, by batch 250,000
    tools_at_once: int = 64  # tool handlers that may be at work at the same time
    tool_timeout_seconds: float = 60.0  # for one call of a tool
    turns_max: int = Rules.turns_max  # times that a request may ask for tools
    attempts_max: int = Rules.attempts_max  # failures of one call in a row, and runs of a request
    deadline_seconds: float | None = None  # from a request's first create; None: 1 h, by batch 72 h
    run_deadline_seconds: float | None = None  # for one run, its tools not counted; None: endless
    execution_deadline_seconds: float | None = None  # for all of it; None: endless
    max_cost_usd: float | None = None  # nothing is created that might cost more; None: endless
    max_tokens: int | None = None  # likewise, for all models together
    same_failures_max: int = Rules.same_failures_max  # in a row, then it stops; 0: off
    lost_creates: str = RETRY  # "give-up": what may be paid is not sent again when it was lost
    via: str | None = None  # "batch": by the Batch API, what it can take
    enqueued_tokens: int | None = None  # prompt tokens of a model in all batches; None: as told
    batch_lines: int = Rules.batch_lines_max  # in one batch
    direct_below: int = Rules.batch_direct_below  # fewer lines than this go without a batch
    webhook_gap_seconds: float = WEBHOOK_GAP_SECONDS  # between two checks while webhooks arrive
    delete_files: bool = False  # remove the uploaded file of a batch that is over
    cancel_on_exit: bool = False  # cancel what is still at work on the server
    seed: int | None = None  # for the jitter; None: different each time

    def __post_init__(self) -> None:
        if self.via not in {None, BATCH}:
            problem, cure = "there is no such way", 'Say "batch", or leave it out.'
            raise SettingUnusable(name="via", value=self.via, problem=problem, cure=cure)
        if self.lost_creates not in {RETRY, GIVE_UP}:
            problem, cure = "there is no such rule", f'Say "{RETRY}" or "{GIVE_UP}".'
            raise SettingUnusable(
                name="lost_creates", value=self.lost_creates, problem=problem, cure=cure
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or value is None or field.name in NO_AMOUNTS:
                continue
            wrong = _problem_with(value, whole=field.name in WHOLE)
            if wrong is not None and not (value == INFINITE and field.name in MAY_BE_ENDLESS):
                raise SettingUnusable(name=field.name, value=value, problem=wrong, cure="")
        for name in COUNTS:
            count: object = getattr(self, name)
            if type(count) is not int or count < 0:
                problem = "it must be a whole number, 0 or greater"
                raise SettingUnusable(name=name, value=count, problem=problem, cure="")
        self._check_batches()

    def _check_batches(self) -> None:
        if self.batch_lines > Rules.batch_lines_max:
            problem = f"a batch takes {Rules.batch_lines_max:,} lines at most"
            raise SettingUnusable(
                name="batch_lines", value=self.batch_lines, problem=problem, cure=""
            )
        if self.via_batch:
            return
        for name, default in ONLY_BY_BATCH.items():
            value = getattr(self, name)
            if value != default:
                # Without batches the price is twice as high: nobody may forget that by mistake.
                problem, cure = "it is for batches only", 'Say via "batch" too, or leave it out.'
                raise SettingUnusable(name=name, value=value, problem=problem, cure=cure)

    @property
    def via_batch(self) -> bool:
        return self.via == BATCH

    @property
    def places(self) -> int:
        """How many requests may be in flight at the same time."""
        return self.max_in_flight or (IN_FLIGHT_BY_BATCH if self.via_batch else IN_FLIGHT)

    def rules(self, *, line_bytes: int = 0, hears: bool = False) -> Rules:
        """The part that the core needs.

        `line_bytes` is what is added to each line of a batch; `hears` says that webhooks may come.
        """
        given = self.deadline_seconds
        return Rules(
            deadline_seconds=Rules.deadline_seconds if given is None else given,
            batch_deadline_seconds=Rules.batch_deadline_seconds if given is None else given,
            batch_lines_max=self.batch_lines,
            batch_line_bytes=Rules.batch_line_bytes + line_bytes,
            batch_queue_tokens=self.enqueued_tokens,
            batch_direct_below=self.direct_below,
            run_deadline_seconds=self.run_deadline_seconds or INFINITE,
            execution_deadline_seconds=self.execution_deadline_seconds or INFINITE,
            max_cost_usd=self.max_cost_usd or INFINITE,
            max_tokens=self.max_tokens or INFINITE,
            same_failures_max=self.same_failures_max,
            gives_up_lost=self.lost_creates == GIVE_UP,
            attempts_max=self.attempts_max,
            check_price_seconds=self.check_price_seconds,
            turns_max=self.turns_max,
            webhook_gap_seconds=self.webhook_gap_seconds if hears else None,
            checks_lane=None if self.checks_rpm is None else CHECKS_LANE,
        )


def _problem_with(value: object, *, whole: bool) -> str | None:
    if not isinstance(value, int | float) or not value > 0:  # NaN is not greater than anything
        return "it must be a number greater than 0"
    if whole and not isinstance(value, int):
        return "it must be a whole number"
    if value < NUMBER_MIN:
        return f"it must be at least {NUMBER_MIN}"
    return None if value < INFINITE else "it must be finite; leave it out for no limit"
