"""What a seed stands for: requests, settings, a server in trouble, and the fates of processes."""

from dataclasses import dataclass
from random import Random

from simulation.endpoint import has_endpoint, with_endpoint
from simulation.machine import Fate, Trouble
from test_mixed_families import EVERY, at_once, on_chat, on_embeddings

from orchestrator.core.settings import GIVE_UP, RETRY, Settings
from orchestrator.emulator.durations import Fixed, Lognormal
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings as ServerSettings

MODEL = "gpt-5-mini"
DAYS = 86_400.0
ATTEMPTS_MIN = 6


KINDS = EVERY
BY_BATCH = (at_once, on_chat, on_embeddings)

CALL_FAULTS = (
    "error_500",
    "error_503",
    "error_429",
    "slow",
    "drop_before",
    "drop_after",
    "malformed",
)

# Those with which every request can still be done.
DEVIATIONS = (
    "any_plain_errors",
    "any_missing_is_400",
    "any_missing_is_500",
    "any_reset_after_400",
    "any_broken_json",
    "responses_no_background",
    "assistants_no_create_and_run",
    "assistants_plain_ids",
    "assistants_float_times",
    "assistants_nulls",
    "assistants_messages_shuffled",
    "assistants_second_submit_404",
    "assistants_cancel_wants_no_body",
    "sessions_blocking_create",
    "sessions_no_turn_id",
    "sessions_arguments_object",
    "sessions_plain",
    "batch_blank_error_id",
    "batch_empty_error_file",
    "batch_body_as_text",
    "batch_refused_in_output",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All of it but the chances within a process, which come from the same seed.

    Attributes:
        requests: The lines of the request file.
        settings: Of the job.
        server: Of the emulator.
        has_tools: Whether the job has tools.
        latency_seconds: Of the network, one way.
        commit_seconds_max: How long a commit takes at most, in two parts: before and after it.
        tool_trouble: How often a handler hangs, or raises.
        fates: Of the first processes; the ones after them are left in peace.
        cancel_on_interrupt: Whether an interrupt cancels what runs.
        retries_failed: Whether what failed is sent again in the end, as a user may ask for.
        hears: Whether processes take webhooks.
        is_calm: Whether nothing but these, and processes that die, can make anything late.
    """

    requests: tuple[dict, ...]
    settings: Settings
    server: ServerSettings
    has_tools: bool
    latency_seconds: float
    commit_seconds_max: float
    tool_trouble: float
    fates: tuple[Fate, ...]
    cancel_on_interrupt: bool
    retries_failed: bool
    hears: bool = False
    is_calm: bool = False


def scenario_of(seed) -> Scenario:
    """The same for the same seed."""
    scenario = _without_webhooks(seed)
    return with_endpoint(seed, scenario) if has_endpoint(seed) else scenario


def _without_webhooks(seed):
    chance = Random(f"scenario {seed}")  # noqa: S311 - nothing is kept secret by it
    via = "batch" if chance.random() < 0.2 else None
    choice = BY_BATCH if via else KINDS
    kinds = chance.sample(choice, chance.randint(1, min(3, len(choice))))
    number = chance.randint(5, 9) if chance.random() < 0.85 else chance.randint(10, 25)
    requests = []
    for n in range(number):
        url, body = kinds[n % len(kinds)](f"where is O-{n}?")
        if url not in {"/v1/agents/sessions", "/v1/threads/runs"}:
            body = {"model": MODEL, **body}
        requests.append({"custom_id": f"O-{n}", "url": url, "body": body})
    has_tools = chance.random() < 0.6
    return Scenario(
        requests=tuple(requests),
        settings=_settings(chance, via),
        server=_server(chance, seed, has_tools=has_tools, via=via),
        has_tools=has_tools,
        latency_seconds=chance.choice([0.001, 0.02, 0.2]),
        commit_seconds_max=chance.choice([0.0, 0.005, 0.02, 0.3]),
        tool_trouble=chance.choice([0.0, 0.0, 0.1, 0.3]),
        fates=tuple(_fate(chance) for _ in range(chance.choice([0, 1, 2, 3, 4, 6]))),
        cancel_on_interrupt=chance.random() < 0.5,
        retries_failed=chance.random() < 0.3,
    )


def _settings(chance, via):
    return Settings(
        via=via,
        batch_lines=chance.choice([2, 5, 50]) if via else Settings.batch_lines,
        direct_below=chance.choice([0, 0, 3]) if via else Settings.direct_below,
        rpm=chance.choice([None, None, 30, 60]),
        connections=chance.choice([1, 2, 4, 16]),
        max_in_flight=chance.choice([1, 3, 10, 30]),
        tools_at_once=chance.choice([1, 4]),
        tool_timeout_seconds=20.0,
        attempts_max=chance.choice([ATTEMPTS_MIN, 10]),
        deadline_seconds=DAYS if via else chance.choice([400.0, 1_800.0]),
        run_deadline_seconds=chance.choice([None, None, 100.0]),
        checks_rpm=chance.choice([None, None, None, 60]),
        max_tokens=chance.choice([None] * 9 + [20_000]),
        delete_files=bool(via) and chance.random() < 0.5,
        lost_creates=chance.choice([RETRY, RETRY, RETRY, GIVE_UP]),
    )


def _server(chance, seed, *, has_tools, via):
    faults = {
        name: chance.choice([0.03, 0.1, 0.25]) for name in CALL_FAULTS if chance.random() < 0.2
    }
    if chance.random() < 0.03:
        faults["error_429"] = 0.6
    if via:
        # Half a file of results is taken for all that there is.
        faults.pop("malformed", None)
    if chance.random() < 0.15:
        faults["hang"] = 0.05
    if chance.random() < 0.15:
        faults["batch_expires"] = 0.3
    if chance.random() < 0.15:
        faults["error_line"] = 0.1
    asked = [ToolRequest("look_up", {"order_id": "{1}"})] * chance.choice([1, 1, 2])
    return ServerSettings(
        seed=seed,
        faults=faults,
        rules=(Rule(match=r"(O-\d+)", turns=[asked] * chance.choice([1, 1, 2])),)
        if has_tools
        else (),
        run_seconds=chance.choice(
            [Fixed(0.5), Lognormal(1.5, 0.6), Lognormal(1.5, 0.6), Lognormal(8.0, 0.8)]
        ),
        rpm=chance.choice([None, None, None, 100]),
        deviations=chance.sample(DEVIATIONS, chance.choice([0, 0, 0, 1, 3])),
        list_lag_seconds=chance.choice([0.0, 0.0, 3.0]),
        batch_seconds=chance.choice([None, Fixed(30.0)]),
    )


def _fate(chance):
    """Killed in one way or another, interrupted, or let be; and the disk's own troubles."""
    how = chance.random()
    ends = {}
    if how < 0.35:
        ends = {"step": _step(chance)}
    elif how < 0.55:
        ends = {"operation": int(chance.lognormvariate(4.5, 1.2))}
    elif how < 0.65:
        ends = {"torn_commit": int(chance.lognormvariate(2.0, 1.0)) + 1}
    elif how < 0.8:
        ends = {
            "call": int(chance.lognormvariate(2.0, 1.0)) + 1,
            "steps_later": chance.randint(1, 12),
        }
    if chance.random() < 0.35:
        ends["interrupt_step"] = _step(chance)
    if chance.random() < 0.1:
        trouble = chance.choice(list(Trouble))
        start = int(chance.lognormvariate(2.0, 1.0)) + 1
        until = start + (1 if chance.random() < 0.5 else 10**9)
        ends |= {"trouble": trouble, "trouble_from": start, "trouble_until": until}
    if chance.random() < 0.05:
        ends["write_fails"] = chance.randint(1, 8)
    if chance.random() < 0.02:
        ends["no_ballast"] = True
    if chance.random() < 0.2:
        ends["clock_jumps"] = tuple(
            (_step(chance), chance.uniform(-4 * 3600, 4 * 3600)) for _ in range(2)
        )
    return Fate(
        **ends,
        is_power_loss=chance.random() < 0.4,
        pause_seconds=chance.choice([0.0, 0.0, 1.0, 1.0, 30.0, 30.0, 900.0]),
        loop_seconds=chance.uniform(0.0, 10_000.0),
    )


def _step(chance):
    return int(chance.lognormvariate(5.0, 1.5)) + 1
