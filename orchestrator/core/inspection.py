"""The cheapest times for looking at something that ends at an unknown moment.

To be minimised is the mean of price x looks + delay, where the delay lies between the end and the
look that finds it, and the price is what one look is worth in seconds of delay. With a known
distribution of ages at the end this is solved exactly (Barlow, Hunter and Proschan, "Optimum
checking procedures", 1963): what is to come after a look depends on its age only, so it is a
shortest path from age 0 to the last one. Let A(t) be the mass that has ended by t, B(t) the
integral of x dF up to t, S = 1 - A, and W(i) the cost that is left when the look at t(i) finds it
at work, in total mass:

    W(i) = price S(i) + B(i) + min over j > i of [ t(j) A(j) - B(j) + W(j) - t(j) A(i) ]

For a fixed j that is a line in A(i), with the slope -t(j). From the last age to the first, lines
come with rising slopes and are asked at falling A, so the lowest of them is found by walking along
their convex hull: some n steps instead of n squared, without a loss.
Between two ages of a coarse grid, where looks are closer than the grid, they are spaced as Keller's
asymptotic solution says ("Optimum checking schedules for systems subject to random failure",
1974): gaps of sqrt(2 price / h) at a hazard of h.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

# Looks are spaced within a bin of the grid when there would be 1.5 of them or more.
WITHIN_MIN = 1.5


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where to look next, for each age of a grid.

    Attributes:
        following: By place in the grid, the place of the next look.
        steps: By place, the seconds between looks within the bin that begins there; 0: none there.
        cost: The mean of price x looks + delay, in seconds.
    """

    following: "array[int]"
    steps: "array[float]"
    cost: float


def cheapest(
    ages: Sequence[float],
    ended: Sequence[float],
    summed: Sequence[float],
    price: float,
    *,
    spread_within: bool,
) -> Schedule:
    """The optimal schedule; the last look is at the last age.

    Args:
        ages: Where looks may be, in seconds, rising from 0.
        ended: The part that has ended by each of them, rising up to 1 at most.
        summed: The integral of age x density up to each of them.
        price: Of a look, in seconds of delay, greater than 0.
        spread_within: Whether the mass between two ages is spread there, so that it may be worth
            to look in between; otherwise it lies on the ages.
    """
    last = len(ages) - 1
    following, steps = array("L", bytes(8 * len(ages))), array("d", bytes(8 * len(ages)))
    # The lower hull: lines with rising slopes, each the lowest between two values of A.
    slopes, constants, places = [-ages[last]], [ages[last] * ended[last] - summed[last]], [last]
    lowest = 0
    cost = 0.0
    for place in range(last - 1, -1, -1):
        age, gone = ages[place], ended[place]
        here = slopes[lowest] * gone + constants[lowest]
        while lowest + 1 < len(slopes):
            beside = slopes[lowest + 1] * gone + constants[lowest + 1]
            if beside > here:
                break
            lowest, here = lowest + 1, beside
        following[place] = places[lowest]
        after, cost = cost, price * (1.0 - gone) + summed[place] + here
        if spread_within and gone < min(ended[place + 1], 1.0):  # sums may be over 1 by rounding
            within = _within(ages[place + 1] - age, 1.0 - gone, ended[place + 1] - gone, price)
            if within is not None and within[1] + after < cost:
                steps[place], cost = within[0], within[1] + after
        slope, constant = -age, age * gone - summed[place] + cost
        while len(slopes) > 1:
            above = (constants[-2] - constant) * (slopes[-1] - slopes[-2])
            if above < (constants[-2] - constants[-1]) * (slope - slopes[-2]):
                break
            slopes.pop()
            constants.pop()
            places.pop()
        slopes.append(slope)
        constants.append(constant)
        places.append(place)
        lowest = min(lowest, len(slopes) - 1)
    return Schedule(following, steps, cost)


def _within(width: float, left: float, mass: float, price: float) -> tuple[float, float] | None:
    """The step of looks within a bin, and what they and the delay cost; None: too wide for it."""
    step = sqrt(2.0 * price * width * left / mass)
    if step * WITHIN_MIN >= width:
        return None
    # Those that end here pay for half of the looks.
    return step, price * width / step * (left - mass / 2) + mass * step / 2
