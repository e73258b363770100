"""The worlds with money: a server that charges for every run, and a limit that must hold."""

from dataclasses import replace

from orchestrator.core.model import NO_USAGE, Family, Request, Status, Usage
from orchestrator.core.scheduler import Scheduler

from .batch_world import BATCH_RULES, BatchWorld
from .pretend_server import Server
from .world import BODY, RULES, World

# A token costs this many USD, going in or out.
PRICE = 0.25
ENDS = {Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.UNKNOWN}


def price(model, usage):
    return usage.total_tokens * PRICE


class PaidServer(Server):
    """Each run costs what its request costs, whether or not anybody hears of it.

    What is done in the background is paid from the start, what answers at once with its last turn.
    """

    def __init__(self, costs):
        super().__init__()
        self.costs = costs
        self.paid = {}  # by run

    @property
    def bill(self):
        return sum(self.paid.values())

    def fetch(self, run_id, finished, now):
        return replace(super().fetch(run_id, finished, now), usage=NO_USAGE)

    def _look(self, run, now):
        seen = super()._look(run, now)
        cost = self.costs[run.run_id.partition("/")[0]]
        has_ended = seen.status in ENDS
        if has_ended or run.fate.family is not Family.DIRECT:
            self.paid[run.run_id] = cost
        return replace(seen, usage=Usage(cost - 1, 1) if has_ended else NO_USAGE)


class PaidWorld(World):
    """Every request goes by itself."""

    def __init__(self, fates, seed, sizes, *, rules=RULES, scheduler_type=Scheduler):
        self.sizes = [sizes[n % len(sizes)] for n in range(len(fates) + 1)]
        super().__init__(fates, seed, rules=rules, scheduler_type=scheduler_type)
        self.scheduler = scheduler_type(rules, self.chance.random, price)
        self.server = PaidServer(_costs(self.sizes))

    def _request(self, number, fate):
        return sized(super()._request(number, fate), self.sizes[number])


class PaidBatchWorld(BatchWorld):
    """Requests go by batch where their fate says so; a line costs as much as a call here."""

    def __init__(self, fates, seed, sizes, *, rules=BATCH_RULES, **more):
        self.sizes = [sizes[n % len(sizes)] for n in range(len(fates) + 1)]
        super().__init__(fates, seed, rules=rules, **more)
        self.server = self.batch_server._server = PaidServer(_costs(self.sizes))

    def _request(self, number, fate):
        return sized(super()._request(number, fate), self.sizes[number])


def sized(request: Request, size) -> Request:
    """A request that reserves its cost and something more."""
    cost, more = size
    # At least a token for the output, because 0 means that the body names no limit.
    return replace(request, body_bytes=4 * (cost + more - 1), output_tokens=1, body=BODY)


def _costs(sizes):
    return {f"r{n}": cost for n, (cost, _) in enumerate(sizes)}
