"""Agent sessions on an emulator in virtual time, through OpenAI's own client."""

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from support.emulator_client import emulator_client

BETA = {"headers": {"openai-beta": "agents=v1"}}
HOSTED = {"environment": {"type": "openai_hosted"}}
BARE = {"environment": {"type": "none"}}
LOOK = {"type": "function", "name": "look", "description": "looks", "parameters": {}}
RULES = (
    Rule(match="^tools", tool_calls=[ToolRequest("look", {"at": "it"}), ToolRequest("smell")]),
    Rule(match="^stale", tool_calls=[ToolRequest("look")], stale_checks=2),
    Rule(match="^approve", tool_calls=[ToolRequest("pay", type="mcp_approval_request")]),
    Rule(
        match="^browse",
        turns=[
            [ToolRequest("browser_origin_access", type="computer_use_approval_request")],
            [ToolRequest("browser_authentication", type="computer_use_approval_request")],
        ],
    ),
    Rule(match="^connect", tool_calls=[ToolRequest("env_1", type="environment_connection")]),
    Rule(match="^fail", status="failed", error_code="sandbox_error", error_message="oh"),
    Rule(match="^short", status="incomplete"),
    Rule(match="^break", status="session_failed", error_message="broken"),
    Rule(match="^lost", lose_run=True),
    Rule(match="^odd", status="reticulating"),
    Rule(match="^refuse", http_status=500),
)


def emulator_with(**settings):
    return Emulator(Settings(queue_seconds=Fixed(1), run_seconds=Fixed(2), rules=RULES, **settings))


def sessions_of(emulator):
    client = emulator_client(emulator, _strict_response_validation=True)
    return client.beta.agents.sessions


async def start(sessions, text, **options):
    return await sessions.create(**{"agent": {"model": "m"}, "input": text, **BARE, **options})
