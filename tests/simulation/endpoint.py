"""What some seeds stand for besides: an endpoint for webhooks, and what befalls these.

The chances come from a stream of their own, so that all other seeds play what they always played.
"""

from dataclasses import replace
from random import Random

from simulation.machine import Fate
from support.webhook_carrier import SECRET, URL
from test_mixed_families import EVERY, on_responses, on_sessions

from orchestrator.emulator.durations import Fixed, Lognormal

# One seed of so many has an endpoint.
EVERY_SEED = 3

MODEL = "gpt-5-mini"
TOLD = (on_responses, on_sessions)

FAULTS = (
    "webhook_lost",
    "webhook_doubled",
    "webhook_late",
    "webhook_overtaken",
    "webhook_forged",
    "webhook_early",
)
DEVIATIONS = ("webhooks_title_case", "webhooks_v1a_first", "webhooks_unknown_type")

# Where it is judged how late something was, a check costs so little that what is learned of
# lifetimes never makes one later than backoff would.
CALM_CHECK_PRICE_SECONDS = 0.01

# Fates that leave the disk and the rest of the process in order.
CALM_FATES = ("step", "operation", "torn_commit", "call", "steps_later", "webhook")


def has_endpoint(seed):
    return seed % EVERY_SEED == 0


def with_endpoint(seed, scenario):
    """The scenario with webhooks; half of them are calm: only webhooks and processes fail."""
    chance = Random(f"webhooks {seed}")  # noqa: S311 - nothing is kept secret by it
    scenario = replace(
        scenario,
        hears=True,
        settings=replace(scenario.settings, webhook_gap_seconds=chance.choice([60.0, 300.0])),
        server=_server(chance, scenario.server),
        fates=tuple(_fate(chance, fate) for fate in scenario.fates),
    )
    return _calm(chance, scenario) if chance.random() < 0.5 else scenario


def _server(chance, server):
    faults = {name: chance.choice([0.05, 0.2, 0.5]) for name in FAULTS if chance.random() < 0.25}
    outage = {}
    if chance.random() < 0.4:
        begins = chance.choice([0.0, 0.0, 10.0, 40.0])
        outage["webhook_outage_from_seconds"] = begins
        if chance.random() < 0.5:
            until = begins + chance.choice([5.0, 60.0])
            outage["webhook_outage_until_seconds"] = until
    deviations = [name for name in DEVIATIONS if chance.random() < 0.1]
    return replace(
        server,
        **outage,
        faults={**server.faults, **faults},
        deviations=[*server.deviations, *deviations],
        webhook_url=URL,
        webhook_secret=SECRET,
        webhook_late_seconds=chance.choice([0.5, 10.0]),
        webhook_retry_seconds=chance.choice([1.0, 5.0]),
    )


def _fate(chance, fate):
    if chance.random() < 0.7:
        return fate
    return replace(fate, step=0, webhook=chance.randint(1, 6))


def _calm(chance, scenario):
    """Nothing but webhooks can make anything late, so that it can be said how late at most.

    There is more of what webhooks tell of, and for longer.
    """
    settings = replace(
        scenario.settings,
        rpm=None,
        checks_rpm=None,
        max_tokens=None,
        connections=64,
        max_in_flight=chance.choice([2, 2, 5, 30]),
        deadline_seconds=86_400.0,
        run_deadline_seconds=None,
        check_price_seconds=CALM_CHECK_PRICE_SECONDS,
    )
    server = scenario.server
    server = replace(
        server,
        rpm=None,
        faults={name: rate for name, rate in server.faults.items() if name in FAULTS},
        deviations=[name for name in server.deviations if name in DEVIATIONS],
        list_lag_seconds=0.0,
        run_seconds=chance.choice(
            [Fixed(0.5), Lognormal(1.5, 0.6), Lognormal(8.0, 0.8), *[Lognormal(40.0, 0.5)] * 2]
        ),
    )
    fates = [_calm_fate(fate) for fate in scenario.fates] if chance.random() < 0.5 else ()
    return replace(
        scenario,
        is_calm=True,
        requests=scenario.requests if settings.via else tuple(_requests(chance)),
        settings=settings,
        server=server,
        tool_trouble=0.0,
        fates=tuple(fates),
    )


def _calm_fate(fate):
    return Fate(
        **{name: getattr(fate, name) for name in CALM_FATES},
        is_power_loss=fate.is_power_loss,
        pause_seconds=min(fate.pause_seconds, 30.0),  # or what has ended is gone
        loop_seconds=fate.loop_seconds,
    )


def _requests(chance):
    kinds = [chance.choice(TOLD), *chance.sample(EVERY, chance.choice([0, 0, 1]))]
    for n in range(chance.randint(8, 25)):
        url, body = kinds[n % len(kinds)](f"where is O-{n}?")
        if url not in {"/v1/agents/sessions", "/v1/threads/runs"}:
            body = {"model": MODEL, **body}
        yield {"custom_id": f"O-{n}", "url": url, "body": body}
