"""Looks whether the learned policy keeps its promises, on recorded durations and on made-up ones.

    python benchmarks/policies.py ../shared/data/traces

On each trace the dial is set so that the mean delay is at most the backoff's; what is compared is
checks per run. Made-up traces are there to deceive it: constant, near 0, with heavy tails,
drifting, suddenly changed, alternating, with many keys and few runs each. Exit code 1 when a bound
is broken.
"""

import csv
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from math import exp, log
from pathlib import Path
from random import Random

from orchestrator.core.polling import Polling
from orchestrator.traces import Trace, compare
from orchestrator.traces.comparison import BACKOFF, LEARNED, OFFLINE, Comparison

WORSE_MAX = 1.05  # of the backoff's checks, on any trace
Runs = list[tuple[str, float]]


def column(path: Path, name: str, key: str = "", leave_out: tuple[str, str] = ("", "")) -> Runs:
    with path.open(newline="") as file:
        return [
            (row[key] if key else "", float(row[name]))
            for row in csv.DictReader(file)
            if row[name] and not (leave_out[0] and row[leave_out[0]] == leave_out[1])
        ]


def figures(comparison: Comparison) -> tuple[float, float, float]:
    by = {each.policy: each for each in comparison.figures}
    for each in (by[LEARNED], by[OFFLINE]):
        assert each.delay_mean_seconds <= by[BACKOFF].delay_mean_seconds * 1.0001, comparison
    return by[BACKOFF].checks_per_run, by[LEARNED].checks_per_run, by[OFFLINE].checks_per_run


def told(
    name: str, comparison: Comparison, fewer_min: float, over_max: float = float("inf")
) -> bool:
    backoff, learned, offline = figures(comparison)
    fewer, over = backoff / learned, learned / offline
    held = fewer >= fewer_min and over <= over_max
    print(
        f"{name:<28} {comparison.runs:>7,} runs  backoff {backoff:>6.2f}  learned {learned:>6.3f}"
        f"  offline {offline:>6.3f}  fewer {fewer:>5.2f}x (at least {fewer_min:g}x)"
        f"  over offline {over:>5.3f}  {'ok' if held else 'BROKEN'}",
        flush=True,
    )
    return held


def recorded(folder: Path) -> Iterator[bool]:
    uccb = column(folder / "uccb_eval_item_seconds.csv", "evaluation_time_s", "model")
    for model in sorted({key for key, _ in uccb}):
        runs = [run for run in uccb if run[0] == model]
        trace = Trace(runs, "", 0)
        yield told(model, compare(trace, Polling(), skip=200), 3.0, 1.1)
        Random(1).shuffle(runs)  # noqa: S311 - no secret
        yield told(f"{model[-12:]}, shuffled", compare(Trace(runs, "", 0), Polling()), 3.0)
    left_out = ("failure_mode", "agent_timeout")
    agents = column(folder / "terminal_bench_agent_runs.csv", "agent_s", "", left_out)
    capped = Polling(gap_seconds_max=30.0)
    yield told("terminal bench", compare(Trace(agents, "", 0), capped), 1.8)
    bfcl = column(folder / "bfcl_api_latency.csv", "latency_s", "model_id")
    yield told("bfcl, by model", compare(Trace(bfcl, "", 0), Polling()), 1.7)
    one_key = [("", seconds) for _, seconds in bfcl[::25]]
    yield told("bfcl, part, no key", compare(Trace(one_key, "", 0), Polling()), 1 / WORSE_MAX)


class MadeUp:
    """Draws durations; every draw is told its place in the trace."""

    def __init__(self) -> None:
        self.chance = Random(7)  # noqa: S311 - no secret

    def around(self, middle: float, sigma: float) -> float:
        return middle * exp(self.chance.gauss(0, sigma))

    def single(self, number: int, draw: Callable[[int], float]) -> Runs:
        return [("", min(max(draw(n), 0.0), 3_600.0)) for n in range(number)]

    def laws(self) -> Iterator[tuple[str, Runs]]:
        chance, single = self.chance, self.single
        for constant in (0.0, 0.01, 0.3, 0.5, 1.0, 5.0, 60.0, 600.0):
            yield f"constant {constant:g}", [("", constant)] * 1_000
        for number in (1, 5, 12, 20, 40, 120):
            yield f"tiny {number}", single(number, lambda _: self.around(2, 1))
        yield "near 0", single(1_000, lambda _: abs(chance.gauss(0, 0.05)))
        yield "uniform to 0.6", single(2_000, lambda _: chance.random() * 0.6)
        yield "uniform to 60", single(2_000, lambda _: chance.random() * 60)
        for mean in (1, 10, 100):
            draws = [chance.expovariate(1 / mean) for _ in range(2_000)]
            yield f"exponential {mean}", single(2_000, draws.__getitem__)
        for index in (1.1, 0.7):
            draws = [chance.paretovariate(index) / 3 for _ in range(2_000)]
            yield f"pareto {index}", single(2_000, draws.__getitem__)
        for sigma in (2, 3):
            draws = [self.around(1, sigma) for _ in range(2_000)]
            yield f"lognormal {sigma}", single(2_000, draws.__getitem__)
        yield "log-uniform", single(2_000, lambda _: exp(chance.uniform(log(0.05), log(500))))
        few = single(2_000, lambda _: self.around(1 if chance.random() < 0.5 else 40, 0.2))
        yield "two humps", few
        yield "spikes", single(2_000, lambda _: 300.0 if chance.random() < 0.02 else 2.0)

    def changes(self) -> Iterator[tuple[str, Runs]]:
        single, around = self.single, self.around
        for factor in (0.1, 0.3, 0.6, 1.5, 3.0, 10.0):
            for sigma in (0.05, 0.3, 1.0):
                draws = [around(8 if n < 1_000 else 8 * factor, sigma) for n in range(2_000)]
                yield f"suddenly x{factor:g}, sigma {sigma}", single(2_000, draws.__getitem__)
        yield "drifting up", single(3_000, lambda n: around(30.0 ** (n / 3_000), 0.3))
        yield "drifting down", single(3_000, lambda n: around(30.0 ** (1 - n / 3_000), 0.3))
        for length in (1, 5, 17, 50, 200, 500):
            draws = [(2.0, 0.4)[n // length % 2] for n in range(2_000)]
            yield f"alternating {length}", single(2_000, draws.__getitem__)
            draws = [around((1, 6)[n // length % 2], 0.6) for n in range(2_000)]
            yield f"alternating {length}, wide", single(2_000, draws.__getitem__)
        yield "rising order", sorted(single(2_000, lambda _: self.chance.expovariate(0.2)))
        for each in (5, 10, 20, 40):
            keys = 2_000 // each
            runs = [(str(n % keys), around(1 + n % 7, 0.7)) for n in range(2_000)]
            yield f"{keys} keys, {each} each", runs


def main() -> int:
    held = list(recorded(Path(sys.argv[1]))) if len(sys.argv) > 1 else []
    ratios = []
    made_up = MadeUp()
    for name, runs in chain(made_up.laws(), made_up.changes()):
        comparison = compare(Trace(runs, "", 0), Polling())
        held.append(told(name, comparison, 1 / WORSE_MAX))
        backoff, learned, _ = figures(comparison)
        ratios.append((learned / backoff, name))
    print(f"the worst of the made-up: {', '.join(f'{n} {r:.3f}' for r, n in sorted(ratios)[-4:])}")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
