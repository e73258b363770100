"""Tools: the user's functions, described to the model and called when it asks for them.

Rules: what the model says is not to be trusted, so it is validated before a handler sees it; what
goes wrong is told to the model as the output of its call, so that the run goes on.
"""

from orchestrator.adapters.tools.loading import load_tools
from orchestrator.adapters.tools.tool import Tool, ToolSchema
from orchestrator.adapters.tools.toolbox import Toolbox

__all__ = ["Tool", "ToolSchema", "Toolbox", "load_tools"]
