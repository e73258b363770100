"""What may be spent, what was spent, and what is reserved for requests that are on their way.

Rules:

- Before its run is created a request reserves what it may cost at most: its body's tokens and all
  the output that the body allows. It may go out when spent + reserved + its own fits the limits;
  until then it waits, and who has waited longest goes first.
- A request holds its reservation until it ends, or until its run is to be created anew: what that
  one cost is known by then. Tool turns are not stopped in the middle.
- When the answer of a create was lost nobody knows what it cost: all that was reserved counts as
  spent, for good, and the next create reserves anew.
- USD are whole trillionths in here, so that adding and taking away never leaves a crumb.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.entries import Spent
from orchestrator.core.families import EMBEDDINGS_URL, FACTS, MODERATIONS_URL
from orchestrator.core.model import NO_USAGE, Request, Result, RunError, Usage
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run

Price = Callable[[str, Usage], float | None]

# What a token costs by the Batch API, as a part of its price (API guide).
BATCH_PRICE_PART = 0.5

# Output that is reserved where a body names no limit of its own. Answers are mostly shorter, some
# are longer: whoever wants a limit that holds names one (max_output_tokens).
OUTPUT_TOKENS_ASSUMED = 4_096

# As for the limiter, but of bytes: what is not ASCII takes more tokens.
BYTES_PER_TOKEN = 4

# They answer with numbers, which are not counted as tokens.
URLS_WITHOUT_OUTPUT = frozenset({EMBEDDINGS_URL, MODERATIONS_URL})

UNITS_PER_USD = 10**12

INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens, and what they cost in trillionths of a USD."""

    tokens: int = 0
    units: float = 0  # whole, or infinite for what has no price

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.units + other.units)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.units - other.units)

    def __mul__(self, times: int) -> "Amount":
        return Amount(self.tokens * times, self.units * times if times else 0)

    @property
    def usd(self) -> float:
        return self.units / UNITS_PER_USD


NOTHING = Amount()


class Budget:
    """Lets requests in as long as there is money, and tokens, for them.

    Args:
        rules: With the limits; without any, nothing is counted here.
        price: What a usage of a model costs in USD; None where no price is known.
    """

    def __init__(self, rules: Rules, price: Price | None = None) -> None:
        self.is_limited = rules.max_cost_usd < INFINITE or rules.max_tokens < INFINITE
        self.spent = NOTHING  # what was assumed included
        self.assumed = NOTHING  # for answers that were lost
        self.reserved = NOTHING
        self.holders = 0  # runs with a reservation
        self._max_tokens = rules.max_tokens
        self._max_units = rules.max_cost_usd * UNITS_PER_USD
        self._price = price if rules.max_cost_usd < INFINITE else None
        # Whatever is not worth a batch goes by itself, at the full price.
        self._batch_part = 1.0 if rules.batch_direct_below else BATCH_PRICE_PART
        self._waiting: OrderedDict[int, Run] = OrderedDict()

    # What the roster asks.

    def admits(self, run: Run, *, first: bool = False) -> bool:
        """Whether this run may be created: it has a reservation, or gets one now.

        If not, it waits until `take_next` gives it; with `first` before all others.
        """
        if not self.is_limited or run.reserved:
            return True
        if (first or not self._waiting) and self._fits(run):
            self._reserve(run)
            return True
        self._waiting[run.number] = run
        self._waiting.move_to_end(run.number, last=not first)
        return False

    def take_next(self) -> Run | None:
        """The run that has waited longest, with its reservation, if there is room for it now."""
        first = next(iter(self._waiting.values()), None)
        if first is None or not self._fits(first):
            return None
        del self._waiting[first.number]
        self._reserve(first)
        return first

    def claim(self, run: Run) -> None:
        """This run is created; in a replay it was, so it has its reservation, come what may."""
        if self.is_limited and not run.reserved:
            self._reserve(run)

    @property
    def waits(self) -> bool:
        """Whether anybody waits here."""
        return bool(self._waiting)

    def holds(self, run: Run) -> bool:
        """Whether this run waits here."""
        return run.number in self._waiting

    def settle(self, run: Run) -> None:
        """A request has ended: nothing is reserved for it any more."""
        if not self.is_limited:
            return
        self._waiting.pop(run.number, None)
        self._assume(run, run.lost - run.lost_assumed)
        self.release(run)

    def release(self, run: Run) -> None:
        """What the last run of this request cost is known."""
        if run.reserved:
            run.reserved = False
            self.holders -= 1
            self.reserved -= self.estimate(run.request)

    # What is learned on the way.

    def spend(self, run: Run, usage: Usage) -> None:
        """A server counted tokens for this run."""
        by_batch = run.request.via_batch and not run.direct
        self.note_spent(run.request.model, usage, usage if by_batch else NO_USAGE)

    def note_spent(self, model: str, usage: Usage, batch_usage: Usage = NO_USAGE) -> None:
        """This was spent; `batch_usage` is the part of it that came by batch."""
        if self.is_limited:
            self.spent += self._amount(model, usage, batch_usage)

    def count_before(self, before: Spent) -> None:
        """Requests that an earlier process saw end have spent this."""
        if not self.is_limited:
            return
        priced = self._price is not None
        assumed = Amount(before.lost_usage.total_tokens, _units(before.lost_usd) if priced else 0)
        units = _units(before.cost_usd or 0.0) if priced else 0
        self.spent += Amount(before.usage.total_tokens, units) + assumed
        self.assumed += assumed

    def _amount(self, model: str, usage: Usage, batch_usage: Usage) -> Amount:
        units = 0.0
        if self._price is not None and usage != NO_USAGE:
            units = _units(cost_usd(self._price, model, usage, batch_usage) or 0.0)
        return Amount(usage.total_tokens, units)

    def lose(self, run: Run, *, is_create: bool) -> None:
        """The answer of a call that may be paid was lost, and nobody can look what it did.

        A create that is looked for is counted when its request ends without it, see `settle`.
        """
        if not self.is_limited or (is_create and FACTS[run.request.family].finds_lost_creates):
            return
        self._assume(run, 1)
        if is_create:
            self.release(run)

    def assumed_for(self, request: Request, lost: int) -> Amount:
        """What is taken for spent on answers of this request that were lost."""
        return self.estimate(request) * lost if self.is_limited else NOTHING

    def estimate(self, request: Request) -> Amount:
        """What is reserved for one run of a request."""
        most = usage_at_most(request)
        if self._price is None:
            return Amount(most.total_tokens)
        usd = self._price(request.model, most)
        part = self._batch_part if request.via_batch else 1.0
        return Amount(most.total_tokens, INFINITE if usd is None else _units(usd * part))

    @property
    def error(self) -> RunError | None:
        """Why nothing more can be created, None as long as something can, or may later."""
        if not self.is_limited:
            return None
        told = f"the limit is {self._limits_told()}, and {self._told(self.spent)} are spent"
        if self._exceeds(self.spent):
            return RunError("budget_spent", told)
        first = next(iter(self._waiting.values()), None)
        if first is None or self.holders or self._fits(first):
            return None
        next_one = self._told(self.estimate(first.request))
        return RunError("budget_spent", f"{told}; the next request may take {next_one}")

    def as_dict(self) -> dict[str, float | int | None] | None:
        """For the summary; None without a limit."""
        if not self.is_limited:
            return None
        priced = self._price is not None
        return {
            "max_cost_usd": self._max_units / UNITS_PER_USD if priced else None,
            "max_tokens": int(self._max_tokens) if self._max_tokens < INFINITE else None,
            "spent_usd": round(self.spent.usd, 6) if priced else None,
            "spent_tokens": self.spent.tokens,
            "assumed_usd": round(self.assumed.usd, 6) if priced else None,
            "assumed_tokens": self.assumed.tokens,
        }

    def _reserve(self, run: Run) -> None:
        run.reserved = True
        self.holders += 1
        self.reserved += self.estimate(run.request)

    def _assume(self, run: Run, times: int) -> None:
        run.lost_assumed += times
        assumed = self.assumed_for(run.request, times)
        self.spent += assumed
        self.assumed += assumed

    def _fits(self, run: Run) -> bool:
        return not self._exceeds(self.spent + self.reserved + self.estimate(run.request))

    def _exceeds(self, amount: Amount) -> bool:
        return amount.tokens > self._max_tokens or amount.units > self._max_units

    def _limits_told(self) -> str:
        limits = [f"{self._max_tokens:,} tokens"] if self._max_tokens < INFINITE else []
        if self._price is not None:
            limits.append(f"{self._max_units / UNITS_PER_USD:,g} USD")
        return " and ".join(limits)

    def _told(self, amount: Amount) -> str:
        usd = f" ({amount.usd:,.4g} USD)" if self._price is not None else ""
        return f"{amount.tokens:,} tokens{usd}"


def usage_at_most(request: Request) -> Usage:
    """What one run of a request may use, as far as its body tells."""
    assumed = 0 if request.url in URLS_WITHOUT_OUTPUT else OUTPUT_TOKENS_ASSUMED
    return Usage(-(-request.body_bytes // BYTES_PER_TOKEN), request.output_tokens or assumed)


def cost_usd(price: Price, model: str, usage: Usage, batch_usage: Usage) -> float | None:
    """What a usage costs, `batch_usage` being the part that came by batch; None without a price."""
    usd = price(model, usage)
    if usd is None or batch_usage == NO_USAGE:
        return usd
    return usd - (1 - BATCH_PRICE_PART) * (price(model, batch_usage) or 0.0)


def costs_of(price: Price, result: Result) -> tuple[float | None, float]:
    """What a result cost in USD, None without a price; and what its lost answers may cost."""
    request = result.request
    cost = cost_usd(price, request.model, result.usage, result.batch_usage)
    if not result.lost:
        return cost, 0.0
    one = price(request.model, usage_at_most(request)) or 0.0
    return cost, result.lost * one * (BATCH_PRICE_PART if request.via_batch else 1.0)


def _units(usd: float) -> float:
    return round(usd * UNITS_PER_USD) if usd < INFINITE else INFINITE
