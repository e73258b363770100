"""Runs thousands of OpenAI-style asynchronous requests from one event loop."""

from orchestrator.adapters.tools import Tool
from orchestrator.core.model import Answer, Outcome, Request, Result, RunError, Usage
from orchestrator.errors import ExecutionStopped, OrchestratorError, UserMistake
from orchestrator.service import Orchestrator
from orchestrator.version import __version__

__all__ = [
    "Answer",
    "ExecutionStopped",
    "Orchestrator",
    "OrchestratorError",
    "Outcome",
    "Request",
    "Result",
    "RunError",
    "Tool",
    "Usage",
    "UserMistake",
    "__version__",
]
