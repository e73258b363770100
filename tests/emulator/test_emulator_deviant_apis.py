"""Deviations of Assistants and agent sessions, each against the same server without it."""

import asyncio
from uuid import UUID

import openai
import pytest
from support.agent_sessions import BETA as AGENTS
from support.agent_sessions import HOSTED
from support.agent_sessions import RULES as SESSION_RULES
from support.emulator_client import call_of, content, emulator_client, get, post

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings

BETA = {"headers": {"openai-beta": "assistants=v2"}}
RULES = (*SESSION_RULES, Rule(match="^bad", tool_calls=[ToolRequest("look", "{")]))
PREFIXES = ("asst_", "thread_", "run_", "msg_", "call_")

# The client says so at each call of Assistants; servers that speak this API remain.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")


def emulator_with(*deviations, **settings):
    timing = {"queue_seconds": Fixed(1), "run_seconds": Fixed(2), "rules": RULES}
    return Emulator(Settings(**{**timing, **settings}, deviations=deviations))


def both(deviation, look):
    """What `look` finds without the deviation and with it."""
    return look(emulator_with()), look(emulator_with(deviation))


class Thread:
    """A thread with one message, and short words for what is done with it."""

    def __init__(self, emulator, text="hello"):
        self.emulator = emulator
        body = {"messages": [{"role": "user", "content": text}], "metadata": {"k": "v"}}
        self.shown = content(post(emulator, "/v1/threads", body, **BETA))
        self.path = f"/v1/threads/{self.shown['id']}"

    def start(self, now=0.0, **fields):
        body = {"assistant_id": "any", "metadata": {"k": "v"}, **fields}
        return post(self.emulator, f"{self.path}/runs", body, now=now, **BETA)

    def run(self, now=0.0):
        return content(self.start(now))["id"]

    def post(self, run_id, what, body=None, now=0.0, headers=()):
        options = {"headers": {**BETA["headers"], **dict(headers)}}
        return post(self.emulator, f"{self.path}/runs/{run_id}/{what}", body, now=now, **options)

    def at(self, run_id, now):
        return content(get(self.emulator, f"{self.path}/runs/{run_id}", now=now, **BETA))

    def messages(self, now, query=""):
        return content(get(self.emulator, f"{self.path}/messages{query}", now=now, **BETA))


class TestAssistants:
    def test_cancelling_for_ever(self):
        """Not even when its time is up is it anything else."""

        def look(emulator):
            thread = Thread(emulator)
            run_id = thread.run()
            thread.post(run_id, "cancel", now=1)
            return [thread.at(run_id, now)["status"] for now in (1.1, 5, 10**6)]

        plain, stuck = both("assistants_stuck_cancelling", look)
        assert plain == ["cancelling", "cancelled", "cancelled"]
        assert stuck == ["cancelling"] * 3

    async def test_no_create_and_run(self):
        """OpenAI's client gets a 404; a thread and then its run work."""
        threads = emulator_client(emulator_with("assistants_no_create_and_run")).beta.threads
        with pytest.raises(openai.NotFoundError):
            await threads.create_and_run(assistant_id="any")
        thread = await threads.create(messages=[{"role": "user", "content": "hello"}])
        run = await threads.runs.create(thread.id, assistant_id="any")

        assert run.status == "queued"

    def test_plain_ids(self):
        """Assistant, thread, run, messages, calls; other APIs keep their prefixes."""

        def ids_of(emulator):
            thread = Thread(emulator, "tools")
            assistant = content(post(emulator, "/v1/assistants", {"model": "m"}, **BETA))
            run = thread.at(thread.run(), 5)
            calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
            message = thread.messages(0)["data"][0]["id"]
            return [assistant["id"], thread.shown["id"], run["id"], message, calls[0]["id"]]

        named, plain = both("assistants_plain_ids", ids_of)
        assert all(one.startswith(prefix) for one, prefix in zip(named, PREFIXES, strict=True))
        assert all(len(one) == 32 and int(one, 16) for one in plain)
        said = content(
            post(
                emulator_with("assistants_plain_ids"), "/v1/responses", {"model": "m", "input": "x"}
            )
        )
        assert said["output"][0]["id"].startswith("msg_")

    def test_float_times(self):
        """With their fractions, where OpenAI's are whole."""

        def times_of(emulator):
            thread = Thread(emulator)
            run = thread.at(thread.run(now=0.25), 5)
            message = thread.messages(5)["data"][0]
            times = [thread.shown["created_at"], message["created_at"], message["completed_at"]]
            return [run[name] for name in ("created_at", "started_at", "completed_at")] + times

        whole, floats = both("assistants_float_times", times_of)
        assert {type(at) for at in whole} == {int}
        assert {type(at) for at in floats} == {float}
        assert [at % 1 for at in floats[:3]] == [0.25, 0.25, 0.25]

    def test_nulls(self):
        """usage, expires_at and metadata, in single things and in lists."""

        def nulls_of(emulator):
            thread = Thread(emulator)
            run_id = thread.run()
            unfinished, over = thread.at(run_id, 1), thread.at(run_id, 5)
            listed = content(get(emulator, f"{thread.path}/runs", now=5, **BETA))["data"][0]
            fields = [unfinished["expires_at"], over["usage"], over["metadata"], listed["usage"]]
            messages = [one["metadata"] for one in thread.messages(5)["data"]]
            return [value is None for value in [*fields, thread.shown["metadata"], *messages]]

        plain, nulls = both("assistants_nulls", nulls_of)
        assert not any(plain)
        assert all(nulls)

    def test_messages_shuffled(self):
        """The order is neither that of time nor its reverse; pages still fit together."""

        def texts_of(emulator, order):
            thread = Thread(emulator)
            for number in range(9):
                body = {"role": "user", "content": str(number)}
                post(emulator, f"{thread.path}/messages", body, now=number, **BETA)
            first = thread.messages(9, f"?order={order}&limit=5")
            rest = thread.messages(9, f"?order={order}&limit=5&after={first['last_id']}")
            listed = first["data"] + rest["data"]
            return [one["content"][0]["text"]["value"] for one in listed]

        in_order, shuffled = both("assistants_messages_shuffled", lambda one: texts_of(one, "asc"))
        assert in_order == ["hello", *map(str, range(9))]
        assert shuffled not in (in_order, in_order[::-1])
        assert sorted(shuffled) == sorted(in_order)
        assert texts_of(emulator_with("assistants_messages_shuffled"), "desc") == shuffled

    def test_a_busy_thread_takes_another_run(self):
        """Both come to their end, and both say something."""

        def look(emulator):
            thread = Thread(emulator)
            first, second = thread.start(0), thread.start(1)
            said = [one["run_id"] for one in thread.messages(9)["data"] if one["run_id"]]
            return [first.status, second.status], len(set(said))

        refused, accepted = both("assistants_busy_thread_accepted", look)
        assert refused == ([200, 400], 1)
        assert accepted == ([200, 200], 2)

    def test_a_second_submission_is_not_found(self):
        """The run does not wait for outputs any more, or never did."""

        def look(emulator):
            thread = Thread(emulator, "tools")
            run_id = thread.run()
            action = thread.at(run_id, 5)["required_action"]["submit_tool_outputs"]
            outputs = [{"tool_call_id": one["id"], "output": ""} for one in action["tool_calls"]]
            body = {"tool_outputs": outputs}
            times = (0, 5, 5)
            return [thread.post(run_id, "submit_tool_outputs", body, at).status for at in times]

        plain, deviant = both("assistants_second_submit_404", look)
        assert plain == [400, 200, 400]
        assert deviant == [404, 200, 404]

    async def test_cancel_wants_no_empty_json(self):
        """OpenAI's client is refused as it is; an object, or no content type, is accepted."""
        emulator = emulator_with("assistants_cancel_wants_no_body")
        runs = emulator_client(emulator).beta.threads.runs
        thread = Thread(emulator)
        run_id = thread.run()
        with pytest.raises(openai.BadRequestError):
            await runs.cancel(run_id, thread_id=thread.shown["id"])
        kind = {"content-type": "application/json"}
        accepted = [
            thread.post(run_id, "cancel", body, headers=headers).status
            for body, headers in (({}, kind), (None, {}))
        ]

        assert accepted == [200, 200]
        plain = Thread(emulator_with())
        assert plain.post(plain.run(), "cancel", headers=kind).status == 200


def create_session(emulator, text="hello", now=0.0, **fields):
    body = {"agent": {"model": "m"}, "input": text, **HOSTED, **fields}
    return post(emulator, "/v1/agents/sessions", body, now=now, **AGENTS)


def session_at(emulator, session_id, now, what=""):
    path = f"/v1/agents/sessions/{session_id}{what}"
    return content(get(emulator, path, now=now, **AGENTS))


class TestSessions:
    @pytest.mark.parametrize(
        ("text", "seconds", "status"),
        [
            ("hello", 3, "idle"),
            ("tools", 3, "requires_action"),
            ("break", 3, "failed"),
            ("odd", 3600, "reticulating"),
        ],
    )
    def test_blocking_create(self, text, seconds, status):
        """Create takes as long as the turn; what never ends, as long as a direct call."""

        def look(emulator):
            reply = create_session(emulator, text)
            return reply.delay_seconds, content(reply)["status"]

        plain, blocking = both("sessions_blocking_create", look)
        assert plain == (0, "idle")
        assert blocking == (seconds, status)

    def test_blocking_create_without_input(self):
        """Without a turn there is nothing to wait for."""
        emulator = emulator_with("sessions_blocking_create")
        assert create_session(emulator, None).delay_seconds == 0

    async def test_others_see_a_blocked_session_grow(self):
        """Its list shows it in progress while its create call still waits."""
        sessions = emulator_client(emulator_with("sessions_blocking_create")).beta.agents.sessions
        waiting = asyncio.create_task(
            sessions.create(agent={"model": "m"}, input="hello", **HOSTED)
        )
        await asyncio.sleep(2)
        (seen,) = (await sessions.list()).data
        created = await waiting

        assert (seen.id, seen.status, created.status) == (created.id, "in_progress", "idle")

    def test_required_actions(self):
        """Without turn_id, and with arguments as an object where they are valid."""

        def action_of(text, *deviations):
            emulator = emulator_with(*deviations)
            session_id = content(create_session(emulator, text))["id"]
            return session_at(emulator, session_id, 5)["required_actions"][0]

        plain = action_of("tools")
        assert plain["turn_id"]
        assert plain["arguments"] == '{"at": "it"}'
        assert "turn_id" not in action_of("tools", "sessions_no_turn_id")
        assert "turn_id" not in action_of("approve", "sessions_no_turn_id")
        assert action_of("tools", "sessions_arguments_object")["arguments"] == {"at": "it"}
        assert action_of("bad", "sessions_arguments_object")["arguments"] == "{"

    def test_a_failed_turn_is_a_502(self):
        """The session is there all the same, idle; a turn that does well answers at once."""

        def look(emulator):
            replies = [create_session(emulator, text) for text in ("fail", "hello", "tools")]
            (failed, *_) = content(get(emulator, "/v1/agents/sessions?order=asc", now=9, **AGENTS))[
                "data"
            ]
            turn = session_at(emulator, failed["id"], 9, "/turns")["data"][0]
            seen = [(one.status, one.delay_seconds) for one in replies]
            return seen, failed["status"], turn["status"]

        plain, deviant = both("sessions_failed_turn_502", look)
        assert plain == ([(200, 0)] * 3, "idle", "failed")
        assert deviant == ([(502, 3), (200, 0), (200, 0)], "idle", "failed")

    def test_uuids_and_iso_times(self):
        """Sessions, turns, items and calls; and they are found by these ids."""
        emulator = emulator_with("sessions_plain")
        session = content(create_session(emulator, "tools"))
        seen = session_at(emulator, session["id"], 5)
        turn = session_at(emulator, session["id"], 5, "/turns")["data"][0]
        items = session_at(emulator, session["id"], 5, "/items")["data"]
        ids = [session["id"], session["agent"]["id"], turn["id"], *(one["id"] for one in items)]

        assert [str(UUID(one)) for one in ids] == ids
        assert UUID(seen["required_actions"][0]["call_id"])
        assert session["created_at"] == turn["created_at"] == "2026-01-01T00:00:00+00:00"
        assert seen["last_active_at"] == "2026-01-01T00:00:03+00:00"
        plain = content(create_session(emulator_with()))
        assert plain["id"].startswith("session_")
        assert isinstance(plain["created_at"], int)

    def test_a_dozen_live_sessions(self):
        """Room is made by deleting, or comes by itself 30 s after a turn has ended."""
        emulator = emulator_with("sessions_live_max")
        ids = [content(create_session(emulator, str(n)))["id"] for n in range(12)]
        refused = create_session(emulator, "one more", now=9)
        path = f"/v1/agents/sessions/{ids[0]}"
        emulator.handle(call_of("DELETE", path, headers=AGENTS["headers"].items()), 9)
        after = [create_session(emulator, "next", now=now).status for now in (9, 9, 32.9, 33, 33)]

        assert refused.status == 429
        assert "Too many live sessions" in content(refused)["error"]["message"]
        assert after == [200, 429, 429, 200, 200]
        plain = emulator_with()
        assert {create_session(plain, str(n)).status for n in range(13)} == {200}

    def test_what_waits_lives_and_what_wakes_up_lives_again(self):
        """A session that needs an action takes up its room for ever; a message takes room again."""
        emulator = emulator_with("sessions_live_max")
        idle = content(create_session(emulator, "hello"))["id"]
        for n in range(11):
            create_session(emulator, f"tools {n}")
        assert create_session(emulator, "first", now=1000).status == 200
        body = {"events": [{"type": "agent.session.input.message", "input": [{"content": "x"}]}]}
        post(emulator, f"/v1/agents/sessions/{idle}/events", body, now=1031, **AGENTS)
        assert create_session(emulator, "second", now=1040).status == 429
