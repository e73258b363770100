"""What polling costs in calls, machines and money, and from how many runs on webhooks are cheaper.

All prices are assumptions, printed with the result and open to be changed. Calls themselves are
free of charge at OpenAI; they take permits, and CPU of ours.
"""

from dataclasses import dataclass

SECONDS_PER_MONTH = 30.44 * 86_400.0
MINUTES_PER_MONTH = SECONDS_PER_MONTH / 60.0

# With an event one call fetches the run, because the event carries only its id.
CALLS_PER_EVENT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What things cost.

    Attributes:
        runs_per_minute: The load, day and night.
        cpu_ms_per_call: CPU time of one call, in milliseconds, the event loop's share included.
        usd_per_cpu_hour: A vCPU hour, near the list price of container services.
        endpoint_usd_per_month: A public HTTPS address that is always on; the smallest containers
            and virtual machines with a load balancer are some 5 to 25 USD.
    """

    runs_per_minute: float = 100.0
    cpu_ms_per_call: float = 1.5
    usd_per_cpu_hour: float = 0.04
    endpoint_usd_per_month: float = 10.0

    @property
    def usd_per_call(self) -> float:
        return self.cpu_ms_per_call / 1_000.0 / 3_600.0 * self.usd_per_cpu_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a way of noticing ends costs at the load.

    Attributes:
        calls_per_minute: Checks, or fetches.
        machines: CPUs that they keep busy.
        usd_per_month: For these.
        break_even_runs_per_month: From so many runs on webhooks are cheaper; None: never.
    """

    calls_per_minute: float
    machines: float
    usd_per_month: float
    break_even_runs_per_month: float | None = None


def costs_of(checks_per_run: float, assumed: Assumptions) -> Costs:
    """Of polling with so many checks per run."""
    calls = checks_per_run * assumed.runs_per_minute
    # An event is received and then asked about: as much work as two calls.
    saved = (checks_per_run - CALLS_PER_EVENT - 1.0) * assumed.usd_per_call
    return Costs(
        calls_per_minute=calls,
        machines=calls / 60.0 * assumed.cpu_ms_per_call / 1_000.0,
        usd_per_month=calls * MINUTES_PER_MONTH * assumed.usd_per_call,
        break_even_runs_per_month=assumed.endpoint_usd_per_month / saved if saved > 0 else None,
    )


def costs_of_webhooks(assumed: Assumptions) -> Costs:
    """Of an event for each run, and the call that it leads to."""
    calls = CALLS_PER_EVENT * assumed.runs_per_minute
    work = calls + assumed.runs_per_minute
    return Costs(
        calls_per_minute=calls,
        machines=work / 60.0 * assumed.cpu_ms_per_call / 1_000.0,
        usd_per_month=work * MINUTES_PER_MONTH * assumed.usd_per_call
        + assumed.endpoint_usd_per_month,
    )
