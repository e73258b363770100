"""What a user may set, with units, ranges and defaults; checked before anything is sent."""

from dataclasses import dataclass, fields

from orchestrator.core.rules import Rules
from orchestrator.errors import SettingUnusable

# The lane of all checks, where they have a limit of their own. No model has such a name.
CHECKS_LANE = "(checks)"

INFINITE = float("inf")

# One call in 16 hours; what is smaller is a slip, and its reciprocal overflows.
NUMBER_MIN = 0.001
MAY_BE_ENDLESS = frozenset({"deadline_seconds", "tool_timeout_seconds"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an orchestrator treats the server and its runs.

    Raises:
        SettingUnusable: A value is out of range.
    """

    rpm: float | None = None  # requests per minute of each model; None: as the server's headers say
    tpm: float | None = None  # tokens per minute of each model; None likewise
    checks_rpm: float | None = None  # status checks per minute; None: they count against `rpm`
    connections: int = 32  # calls that may be out at the same time
    max_in_flight: int = 1_000  # runs that may be in flight at the same time
    tools_at_once: int = 64  # tool handlers that may be at work at the same time
    tool_timeout_seconds: float = 60.0  # for one call of a tool
    turns_max: int = Rules.turns_max  # times that a request may ask for tools
    attempts_max: int = Rules.attempts_max  # failures of one call in a row, and runs of a request
    deadline_seconds: float = Rules.deadline_seconds  # from a request's first create to its end
    cancel_on_exit: bool = False  # cancel what is still at work on the server
    seed: int | None = None  # for the jitter; None: different each time

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or value is None or field.name == "seed":
                continue
            problem = _problem_with(value, whole=isinstance(field.default, int))
            if problem is not None and not (value == INFINITE and field.name in MAY_BE_ENDLESS):
                raise SettingUnusable(name=field.name, value=value, problem=problem, cure="")

    def rules(self) -> Rules:
        """The part that the core needs."""
        return Rules(
            deadline_seconds=self.deadline_seconds,
            attempts_max=self.attempts_max,
            turns_max=self.turns_max,
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
