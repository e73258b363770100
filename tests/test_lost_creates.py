"""Creates whose answer was lost, on the emulator: found where they can be, and counted if not."""

import json
from collections import Counter

import pytest
from support.emulator_client import emulator_client
from support.engine import play
from test_mixed_families import RULE, LookUp, is_right, mixed, on_assistants, on_sessions

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.request_file.given import BodyInMemory
from orchestrator.apis.agent_sessions import AgentSessions
from orchestrator.apis.assistants import Assistants
from orchestrator.apis.transport import Transport
from orchestrator.core.actions import CreateRun, SubmitToolOutputs
from orchestrator.core.families import family_for
from orchestrator.core.model import Outcome, Prepared, Request, ToolOutput
from orchestrator.emulator.deviations import PRESET_ALL, Deviation
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.ports import CallFailed

NAME = "orchestrator_run"
SESSIONS, RUNS = "/agents/sessions", "/runs"
# The others change nothing about creates and lists.
DEVIATIONS = [
    (),
    (Deviation.SESSIONS_BLOCKING_CREATE, Deviation.ASSISTANTS_NULLS),
    (Deviation.SESSIONS_PLAIN, Deviation.ANY_BROKEN_JSON),
    PRESET_ALL,
]


class Watched(Emulator):
    """Remembers in their order what was created, and what was looked for and not found."""

    def __init__(self, settings):
        super().__init__(settings)
        self.told = []

    def handle(self, call, now):
        reply = super().handle(call, now)
        if call.method == "POST" and call.path.endswith((SESSIONS, RUNS)):
            name = json.loads(call.body).get("metadata", {}).get(NAME)
            if reply.drop or reply.status == 200:
                self.told.append(("created", name))
        elif call.method == "GET" and call.path.endswith(SESSIONS):
            self._looked(call.query.get(f"metadata[{NAME}]"), reply)
        return reply

    def _looked(self, name, reply):
        if name is not None and reply.status == 200 and not reply.drop:
            self.told.append(("looked", name))

    def created_blindly(self):
        """Names that were created again without a look since the last time."""
        last, blindly = {}, []
        for what, name in self.told:
            if what == "created" and last.get(name) == "created":
                blindly.append(name)
            last[name] = what
        return blindly


def orphans(played):
    """What was created and never asked for by its id."""
    return [one for one in creates(played) if not one["looked_at"]]


def creates(played):
    return played.emulator.books.creates.page(0, 10**9)


def check_counted(played, number):
    """One result each, the right one; and what was lost is what nobody came back for."""
    assert list(played.outcomes.values()) == [Outcome.COMPLETED] * number
    assert all(is_right(result) for result in played.results.values())
    lost = sum(result.lost for result in played.results.values())
    assert lost == played.orchestrator.totals.creates_lost == len(orphans(played))
    assert not any(one["delivered"] for one in orphans(played))
    assert sum(r.creates for r in played.results.values()) == number
    assert len(creates(played)) == number + lost


@pytest.mark.parametrize("deviations", DEVIATIONS, ids=["none", "blocking", "plain", "all"])
@pytest.mark.parametrize("kind", [on_sessions, on_assistants])
async def test_what_was_lost_is_found(kind, deviations):
    """One answer in five is lost: nothing is created twice, and nothing counts as lost.

    Threads are made twice where their answer was lost; they cost nothing.
    """
    emulator = Watched(
        Settings(seed=5, rules=[RULE], faults={"drop_after": 0.2}, deviations=deviations)
    )

    played = await play(mixed(40, [kind]), emulator, tools=[LookUp().tool()])

    lost = Counter(r.kind for r in played.calls if r.status == "connection_lost")
    assert lost["create"] >= 2
    if kind is on_assistants:
        assert played.served("POST /v1/threads") > 40
    check_counted(played, 40)
    assert orphans(played) == []
    assert emulator.created_blindly() == []


@pytest.mark.parametrize("seed", [1, *(pytest.param(s, marks=pytest.mark.slow) for s in (2, 3))])
@pytest.mark.parametrize(("lag_seconds", "some"), [(5, False), (30, True)])
async def test_lists_that_lag(lag_seconds, some, seed):
    """A lag that is waited for costs nothing; behind a longer one it is created again, counted."""
    settings = Settings(
        seed=seed, rules=[RULE], faults={"drop_after": 0.2}, list_lag_seconds=lag_seconds
    )
    emulator = Watched(settings)

    played = await play(mixed(50, [on_sessions]), emulator, tools=[LookUp().tool()])

    check_counted(played, 50)
    assert bool(orphans(played)) == some
    assert emulator.created_blindly() == []


@pytest.mark.parametrize("kind", [on_sessions, on_assistants])
async def test_what_never_arrived_is_looked_for_too(kind):
    """Nobody can tell the two apart, so a create that was never done stays counted."""
    emulator = Watched(Settings(seed=2, rules=[RULE], faults={"drop_before": 0.2}))

    played = await play(mixed(40, [kind]), emulator, tools=[LookUp().tool()])

    assert list(played.outcomes.values()) == [Outcome.COMPLETED] * 40
    assert orphans(played) == []
    assert len(creates(played)) == 40
    assert played.orchestrator.totals.creates_lost > 0


async def test_a_server_without_lists_is_asked_once_and_created_again():
    """A list that is refused shows nothing; the lost session stays counted."""

    class NoLists(Emulator):
        def handle(self, call, now):
            if call.method == "GET" and call.path.endswith("/sessions"):
                query = {"limit": "none"}  # is refused
                call = type(call)(call.method, call.path, query, call.headers, call.body)
            return super().handle(call, now)

    emulator = NoLists(Settings(seed=2, rules=[RULE], faults={"drop_after": 0.2}))

    played = await play(mixed(20, [on_sessions]), emulator, tools=[LookUp().tool()])

    check_counted(played, 20)
    assert orphans(played)


# What another process of the same execution does.

BODIES = {
    "/v1/agents/sessions": on_sessions("hello")[1],
    "/v1/threads/runs": on_assistants("hello")[1],
    "/v1/threads/{thread}/runs": {"assistant_id": "asst_1"},
}


def process(emulator, url, name="run-1"):
    """The family of this url, as each process of one execution has it."""
    clock = LoopClock()
    transport = Transport(emulator_client(emulator), clock, name=name, on_limits=lambda *_: None)
    if "sessions" in url:
        return AgentSessions(transport, name, tool_names=frozenset({"look_up"}))
    return Assistants(transport, name, answers_tools=True)


def creating(url, number=7, **more):
    body = BodyInMemory(json.dumps({**BODIES[url], "model": "m"}).encode())
    return creating_on(url, body, number, **more)


def creating_on(url, body, number, **more):
    family = family_for(url, background=True)
    request = Request("r", url, family, "m", 1, body)
    return CreateRun(number, request, attempt=1, deadline_at=1e9, group=1, **more)


async def created(api, call, **more):
    """Take a create through its steps."""
    answer = await api.create(call)
    while isinstance(answer, Prepared):
        fields = {name: getattr(call, name) for name in type(call).__dataclass_fields__}
        call = CreateRun(**{**fields, **more, "prepared": answer.continuation})
        answer = await api.create(call)
    return answer, call


@pytest.mark.parametrize("url", ["/v1/agents/sessions", "/v1/threads/runs"])
async def test_another_process_finds_what_the_first_created(url):
    """The name is the execution's and the request's; not another request's, not another run's."""
    emulator = Emulator(Settings())
    first, last = await created(process(emulator, url), creating(url))
    again = {"prepared": last.prepared, "lost": 1}

    found = await process(emulator, url).create(creating(url, **again))

    assert (found.run_id, found.found) == (first.run_id, True)
    if "sessions" in url:
        for other in ({"number": 8}, {"creates": 1}):
            answer = await process(emulator, url).create(creating(url, **{**again, **other}))
            assert isinstance(answer, Prepared)
        stranger = await process(emulator, url, "run-2").create(creating(url, **again))
        assert isinstance(stranger, Prepared)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_runs_of_others_on_the_same_thread_are_left_alone():
    """On a thread that the request names, only our name says which run is ours."""
    emulator = Emulator(Settings(deviations=[Deviation.ASSISTANTS_BUSY_THREAD_ACCEPTED]))
    client = emulator_client(emulator)
    thread = await client.beta.threads.create()
    url = f"/v1/threads/{thread.id}/runs"
    body = BodyInMemory(b'{"assistant_id": "asst_1"}')
    ours, _ = await created(process(emulator, url), creating_on(url, body, 7))
    await created(process(emulator, url, "run-2"), creating_on(url, body, 7))

    found = await process(emulator, url).create(creating_on(url, body, 7, lost=1))
    none = await process(emulator, url).create(creating_on(url, body, 8, lost=1))

    assert (found.run_id, found.found) == (ours.run_id, True)
    assert isinstance(none, Prepared)


async def test_tool_results_of_another_process_have_the_same_key():
    """Sent again after a restart they are the same, and are taken once."""
    keys = []

    class Keys(Emulator):
        def handle(self, call, now):
            reply = super().handle(call, now)
            if call.path.endswith("/events"):
                keys.append((call.headers["idempotency-key"], reply.status))
            return reply

    url = "/v1/agents/sessions"
    emulator = Keys(Settings(rules=[RULE]))
    body = BodyInMemory(json.dumps({**on_sessions("where is O-1?")[1]}).encode())
    call = creating_on(url, body, 7)
    seen, _ = await created(process(emulator, url), call)
    outputs = (ToolOutput("call_1", "it"),)
    for _ in range(2):
        api = process(emulator, url)
        with pytest.raises(CallFailed):  # nothing waits for it; the key is what counts here
            await api.submit(
                SubmitToolOutputs(7, seen.run_id, call.request, outputs, None, deadline_at=1e9)
            )

    (first, _), (second, _) = keys
    assert first == second


async def test_what_the_tools_of_a_run_use_goes_with_its_thread():
    """A run on a thread has no field for it; the thread is the run's own."""
    bodies = {}

    class Bodies(Emulator):
        def handle(self, call, now):
            if call.method == "POST":
                bodies[call.path.rsplit("/", 1)[-1]] = json.loads(call.body)
            return super().handle(call, now)

    resources = {"file_search": {"vector_store_ids": ["vs_1"]}}
    given = {"code_interpreter": {"file_ids": ["file_1"]}}
    request = {
        "url": "/v1/threads/runs",
        "body": {
            "assistant_id": "asst_1",
            "thread": {"messages": [{"role": "user", "content": "hi"}], "tool_resources": given},
            "tool_resources": resources,
        },
    }

    played = await play([request], Bodies(Settings()))

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert bodies["threads"]["tool_resources"] == {**given, **resources}
    assert "tool_resources" not in bodies["runs"]
