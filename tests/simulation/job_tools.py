"""The tools of the simulated jobs; what they do is told by whoever plays."""

from simulation import stage


async def look_up(order_id: str, call_id: str) -> str:
    """Look up an order."""
    return await stage.handler(order_id, call_id)


TOOLS = [look_up]
