"""One pass over a job: check everything, run it, write results and a summary, mind interrupts.

Order matters: whatever can be wrong with what the user gave is found before the first call. An
execution outlives the process: the next one finds its folder and goes on.
"""

from orchestrator.execution.execute import LOG_NAME, Manner, Report, Way, execute
from orchestrator.execution.folder import EXECUTIONS, Beginning

__all__ = ["EXECUTIONS", "LOG_NAME", "Beginning", "Manner", "Report", "Way", "execute"]
