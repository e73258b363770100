"""All families together, for those who drive them."""

from collections.abc import Mapping, Sequence

import msgspec

from orchestrator.apis.agent_sessions import AgentSessions
from orchestrator.apis.assistants import Assistants
from orchestrator.apis.batch import Batch
from orchestrator.apis.composing import function_tool
from orchestrator.apis.direct import Direct
from orchestrator.apis.responses import Responses
from orchestrator.apis.transport import Transport
from orchestrator.core.model import Family
from orchestrator.ports import Api, ToolSchema


def every_family(
    transport: Transport, tools: Sequence[ToolSchema], key: str, *, delete_files: bool
) -> Mapping[Family, Api]:
    """One api for each family.

    Args:
        transport: The way out, the same for all.
        tools: Those that have handlers.
        key: Begins the values of our `metadata` keys, unique for an execution.
        delete_files: Whether the uploaded file of a batch that is over is removed.
    """
    names = frozenset(tool.name for tool in tools)
    direct = Direct(transport, tools)
    return {
        Family.RESPONSES: Responses(transport, tools, key),
        Family.ASSISTANTS: Assistants(transport, key, answers_tools=bool(tools)),
        Family.AGENT_SESSIONS: AgentSessions(transport, key, tool_names=names),
        Family.BATCH: Batch(transport, direct, key, delete_files=delete_files),
        Family.DIRECT: direct,
    }


def line_bytes(tools: Sequence[ToolSchema]) -> int:
    """How much longer each line of a batch is because these tools are offered in it."""
    return sum(len(msgspec.json.encode(function_tool(tool))) for tool in tools)
