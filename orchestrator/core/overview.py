"""Tables for the README: of families, from the facts and the states, and of failures."""

from collections.abc import Iterator

from orchestrator.core.failures import REASONS, VERDICT_ON_CHECK, VERDICT_ON_CREATE
from orchestrator.core.families import FACTS
from orchestrator.core.model import Family
from orchestrator.core.states import TABLE, Change, State

URLS_OF = {
    Family.RESPONSES: "`/v1/responses`",
    Family.ASSISTANTS: "`/v1/threads/runs`, `/v1/threads/{id}/runs`",
    Family.AGENT_SESSIONS: "`/v1/agents/sessions`",
    Family.BATCH: "with `--via batch`: all that is direct, and `/v1/responses`",
    Family.DIRECT: "`/v1/chat/completions`, `/v1/embeddings`, `/v1/completions`, "
    "`/v1/moderations`, `/v1/responses` with `background: false`",
}

HEAD = (
    "family",
    "urls",
    "status checks",
    "webhooks",
    "tools",
    "cancelled at the deadline",
    "a create whose answer was lost",
    "result",
)


def families_table() -> str:
    """What each family supports, as a Markdown table."""
    rows = [HEAD, ("---",) * len(HEAD), *map(_row, URLS_OF)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def failures_table() -> str:
    """What follows from each failed call, and why, as a Markdown table."""
    rows = [
        ("cause", "what happened", "new or continued run", "check", "why"),
        *(
            (f"`{cause}`", happened, VERDICT_ON_CREATE[cause], VERDICT_ON_CHECK[cause], why)
            for cause, (happened, why) in REASONS.items()
        ),
    ]
    head, *lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * 5 + "|", *lines])


def _row(family: Family) -> tuple[str, ...]:
    return (family.value.replace("_", " "), URLS_OF[family], *_supports(family))


def _supports(family: Family) -> Iterator[str]:
    facts, table = FACTS[family], TABLE[family]
    if (State.RUNNING, Change.CHECK_SENT) not in table:
        yield "none: the answer is the result"
    elif facts.runs_per_check > 1:
        yield f"one call for up to {facts.runs_per_check} runs"
    else:
        yield "one call a run"
    yield "yes" if facts.sends_webhooks else "no"
    if family is Family.BATCH:
        yield "go on in another batch"
    else:
        yield "the run waits on the server" if facts.waits_for_outputs else "go on in a new call"
    cancels = (State.RUNNING, Change.STOP_WANTED) in table
    while_tools = (State.TOOLS, Change.STOP_WANTED) in table
    yield (
        ("yes, tools or not" if while_tools else "yes") if cancels else "nothing is left to cancel"
    )
    yield "is looked for first" if facts.finds_lost_creates else "is sent again"
    if family is Family.BATCH:
        yield "in files; what it left undone goes into another batch"
        return
    again = "; an expired run is started again" if facts.runs_again_when_expired else ""
    yield (
        "fetched by a call of its own" if facts.fetches_result else "comes with the answer"
    ) + again
