"""How ways of polling would have done on durations that were recorded: read, replay, cost, plot."""

from orchestrator.traces.comparison import Comparison, Figures, compare
from orchestrator.traces.costs import Assumptions, Costs, costs_of, costs_of_webhooks
from orchestrator.traces.plot import check_plot, plot
from orchestrator.traces.reading import Trace, read_trace

__all__ = [
    "Assumptions",
    "Comparison",
    "Costs",
    "Figures",
    "Trace",
    "check_plot",
    "compare",
    "costs_of",
    "costs_of_webhooks",
    "plot",
    "read_trace",
]
