"""Deviations that touch every API, those of responses, and all of them at once."""

import json

import httpx2
import openai
import pytest
from support.agent_sessions import BETA as AGENTS
from support.agent_sessions import HOSTED
from support.batch_calls import CHAT, chat_line, form_of, jsonl
from support.emulator_client import (
    ThreadlessOpenAI,
    call_of,
    content,
    emulator_client,
    get,
    post,
)

from orchestrator.emulator.deviant_replies import LACKING
from orchestrator.emulator.deviations import PRESET_ALL, Deviation, parse_deviations
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import FAMILIES, Emulator
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.server import Application, serve
from orchestrator.emulator.settings import Settings

ASSISTANTS = {"headers": {"openai-beta": "assistants=v2"}}
LOOK = {
    "type": "function",
    "name": "look",
    "description": "looks",
    "parameters": {},
    "strict": True,
}
RULES = (
    Rule(match="^tools", tool_calls=[ToolRequest("look", {"at": "it"})]),
    Rule(match="^fail", status="failed", error_code="server_error", error_message="oh"),
    Rule(match="^short", status="incomplete", answer="cut off"),
    Rule(match="^hang", status="hang"),
)


def emulator_with(*deviations, **settings):
    timing = {"queue_seconds": Fixed(1), "run_seconds": Fixed(2), "rules": RULES}
    return Emulator(Settings(**{**timing, **settings}, deviations=deviations))


def ask(emulator, text="hello", *, now=0.0, **fields):
    body = {"model": "m", "input": text, **fields}
    return post(emulator, "/v1/responses", body, now=now)


class TestNames:
    def test_several_with_commas_and_all(self):
        """Spaces do no harm; `all` is every one that leaves a client its results."""
        named = parse_deviations("sessions_plain, any_plain_errors")

        assert named == ("any_plain_errors", "sessions_plain")
        assert parse_deviations("all") == PRESET_ALL
        assert set(Deviation) - set(PRESET_ALL) == {"batch_no_output_id"}
        assert parse_deviations("all,batch_no_output_id") == tuple(Deviation)
        assert parse_deviations("") == ()

    def test_unknown_names(self):
        """What can't be meant is said, with what can be."""
        with pytest.raises(EmulatorMistake, match="unknown deviation 'rude'; known are any_plain"):
            parse_deviations("any_plain_errors,rude")

    def test_the_first_word_is_the_api(self):
        """So that a reader of a list of names knows what it is about."""
        apis = {name.partition("_")[0] for name in Deviation}
        assert apis == {"any", "responses", "assistants", "sessions", "batch", "webhooks"}


class TestAnyApi:
    async def test_plain_errors(self):
        """No envelope: OpenAI's client knows neither code nor type."""
        client = emulator_client(emulator_with("any_plain_errors"))
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m")

        assert (caught.value.code, caught.value.type) == (None, None)
        assert caught.value.body == {"detail": "Missing required parameter: 'input'."}

    @pytest.mark.parametrize(
        ("deviations", "status"),
        [
            ((), 404),
            (("any_missing_is_400",), 400),
            (("any_missing_is_500",), 500),
            (("any_missing_is_400", "any_missing_is_500"), 500),
        ],
    )
    def test_missing_runs(self, deviations, status):
        """Of any kind, and their threads; a place or a model that is missing stays a 404."""
        emulator = emulator_with(*deviations, models=["m"])
        thread = content(post(emulator, "/v1/threads", {}, **ASSISTANTS))["id"]
        runs = [
            get(emulator, "/v1/responses/resp_x"),
            post(emulator, "/v1/responses/resp_x/cancel"),
            get(emulator, f"/v1/threads/{thread}/runs/run_x", **ASSISTANTS),
            get(emulator, "/v1/threads/thread_x", **ASSISTANTS),
            get(emulator, "/v1/agents/sessions/session_x", **AGENTS),
            get(emulator, "/v1/batches/batch_x"),
        ]
        others = [get(emulator, "/v1/nowhere"), ask(emulator, model="n")]

        assert {reply.status for reply in runs} == {status}
        assert {reply.status for reply in others} == {404}

    def test_broken_json(self):
        """About one in 20 checks and lists ends in the middle; creates and files never do."""
        emulator = emulator_with("any_broken_json", queue_seconds=Fixed(0), run_seconds=Fixed(0))
        _, form = form_of({"purpose": "batch", "file": ("a.jsonl", jsonl([chat_line("a")]))})
        kind = {"headers": form_of({})[0]}
        file_id = content(post(emulator, "/v1/files", form, **kind))["id"]
        run_id = content(ask(emulator, background=True))["id"]
        broken = {
            path: sum(not is_json(get(emulator, path)) for _ in range(400))
            for path in (f"/v1/responses/{run_id}", "/v1/batches", f"/v1/files/{file_id}/content")
        }
        creates = [ask(emulator, str(number)) for number in range(200)]

        assert all(8 <= broken[path] <= 40 for path in list(broken)[:2])
        assert broken[f"/v1/files/{file_id}/content"] == 0
        assert all(is_json(reply) for reply in creates)

    def test_a_400_marks_its_connection(self):
        """Only a 400, and only with the deviation."""
        emulator = emulator_with("any_reset_after_400")

        assert post(emulator, "/v1/responses", {}).reset
        assert not get(emulator, "/v1/responses/resp_x").reset
        assert not ask(emulator).reset
        assert not post(emulator_with(), "/v1/responses", {}).reset

    @pytest.mark.real_time
    async def test_the_next_call_after_a_400_is_cut_off(self):
        """Nothing announces it; the call that is cut off was never served, the one after it is."""
        emulator = emulator_with("any_reset_after_400", run_seconds=Fixed(0))
        async with (
            serve(emulator) as base_url,
            ThreadlessOpenAI(api_key="any", base_url=base_url, max_retries=0) as client,
        ):
            await client.embeddings.create(model="m", input="first")
            with pytest.raises(openai.BadRequestError) as caught:
                await client.embeddings.create(model="", input="x")
            with pytest.raises(openai.APIConnectionError):
                await client.embeddings.create(model="m", input="cut off")
            await client.embeddings.create(model="m", input="last")

        assert "connection" not in caught.value.response.headers
        counts = emulator.books.snapshot(0)["calls"]["POST /v1/embeddings"]
        assert counts == {"200": 2, "400": 1}

    async def test_without_a_connection_nothing_is_reset(self):
        """The ASGI application by itself answers the 400 and goes on."""
        application = Application(emulator_with("any_reset_after_400"))
        transport = httpx2.ASGITransport(application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://emulator") as client:
            key = {"authorization": "Bearer any"}
            statuses = [
                (await client.post("/v1/responses", json=body, headers=key)).status_code
                for body in ({}, {"model": "m", "input": "x"})
            ]

        assert statuses == [400, 200]


class TestResponses:
    def test_no_background(self):
        """Create waits for the answer, and there is no asking for it afterwards."""
        emulator = emulator_with("responses_no_background")
        reply = ask(emulator, "tools", background=True, tools=[LOOK])
        asked = content(reply)
        output = {"type": "function_call_output", "output": "seen"}
        output["call_id"] = asked["output"][0]["call_id"]
        went_on = ask(emulator, [output], previous_response_id=asked["id"], now=3)

        assert (reply.delay_seconds, asked["status"], asked["background"]) == (
            2,
            "completed",
            False,
        )
        assert get(emulator, f"/v1/responses/{asked['id']}", now=3).status == 404
        assert post(emulator, f"/v1/responses/{asked['id']}/cancel", now=3).status == 404
        assert content(went_on)["output"][0]["content"][0]["text"] == "tool said: seen"

    @pytest.mark.parametrize(
        ("text", "last"),
        [("hello" * 100, "completed"), ("tools", "completed"), ("fail", "failed"), ("short", None)],
    )
    async def test_streams(self, text, last):
        """OpenAI's client, validating strictly, reads the events; the last has all of it."""
        emulator = emulator_with("responses_streams")
        client = emulator_client(emulator, _strict_response_validation=True)
        stream = await client.responses.create(model="m", input=text, tools=[LOOK], stream=True)
        events = [event async for event in stream]
        plain = await client.responses.create(model="m", input=text, tools=[LOOK], stream=False)

        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created"
        assert events[-1].type == f"response.{last or 'incomplete'}"
        said = "".join(one.delta for one in events if one.type == "response.output_text.delta")
        assert said == events[-1].response.output_text == plain.output_text
        if text == "tools":
            pieces = [one for one in events if one.type.endswith("arguments.delta")]
            assert [one.delta for one in pieces] == ['{"at": "it"}']
            assert events[-1].response.output[0].name == "look"

    async def test_streams_unless_told_not_to(self):
        """Who says nothing, or asks for the background, gets a text instead of a response."""
        emulator = emulator_with("responses_streams")
        client = emulator_client(emulator)
        said = await client.responses.create(model="m", input="hello", background=True)
        plain = await client.responses.create(
            model="m", input="hello", background=True, stream=False
        )

        assert isinstance(said, str)
        assert said.splitlines()[-2].startswith('data: {"type":"response.completed"')
        assert plain.status == "queued"
        assert ask(emulator, background=True).delay_seconds == 3
        assert ask(emulator, "hang").delay_seconds == 3600

    def test_lines_of_a_batch_do_not_stream(self):
        """A line is answered with a response, whatever a call would be."""
        emulator = emulator_with("responses_streams", "responses_no_background")
        batch = new_batch_of_responses(emulator)
        done = content(get(emulator, f"/v1/batches/{batch}", now=60))

        assert done["request_counts"] == {"total": 1, "completed": 1, "failed": 0}

    def test_cancelling_what_is_over(self):
        """Half of the time it seems to work, else it is a 409; the response stays completed."""
        emulator = emulator_with("responses_cancel_after_end")
        ids = [content(ask(emulator, str(n), background=True))["id"] for n in range(20)]
        replies = [post(emulator, f"/v1/responses/{one}/cancel", now=9) for one in ids]
        again = [post(emulator, f"/v1/responses/{one}/cancel", now=9) for one in ids]

        assert {reply.status for reply in replies} == {200, 409}
        assert [one.status for one in again] == [one.status for one in replies]
        assert {content(one)["status"] for one in replies if one.status == 200} == {"cancelled"}
        assert content(get(emulator, f"/v1/responses/{ids[0]}", now=9))["status"] == "completed"
        plain = emulator_with()
        run_id = content(ask(plain, background=True))["id"]
        assert (
            content(post(plain, f"/v1/responses/{run_id}/cancel", now=9))["status"] == "completed"
        )


def is_json(reply):
    try:
        json.loads(reply.body)
    except ValueError:
        return False
    return True


def new_batch_of_responses(emulator):
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses"}
    return start_batch(emulator, {**line, "body": {"model": "m", "input": "hi"}}, "/v1/responses")


def start_batch(emulator, line, endpoint, now=0.0):
    headers, form = form_of({"purpose": "batch", "file": ("a.jsonl", jsonl([line]))})
    file_id = content(post(emulator, "/v1/files", form, headers=headers, now=now))["id"]
    body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
    return content(post(emulator, "/v1/batches", body, now=now))["id"]


class PatientClient:
    """Calls every route as a good client would: what is no JSON is asked for again."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.now = 0.0

    def get(self, path, **options):
        for _ in range(5):
            reply = get(self.emulator, path, now=self.now, **options)
            assert reply.status == 200, (path, reply)
            if is_json(reply):
                return content(reply)
        raise AssertionError(path)

    def post(self, path, body=None, *, status=200, **options):
        reply = post(self.emulator, path, body, now=self.now, **options)
        assert reply.status == status, (path, reply)
        self.now += reply.delay_seconds
        return content(reply) if reply.body else None

    def delete(self, path, headers=()):
        call = call_of("DELETE", path, headers=dict(headers))
        reply = self.emulator.handle(call, self.now)
        assert content(reply)["deleted"]

    def use_responses(self):
        said = self.post("/v1/responses", {"model": "m", "input": "x", "stream": False})
        assert said["output"][0]["content"][0]["text"] == "x"

    def use_assistants(self):
        assistant = self.post("/v1/assistants", {"model": "m"}, **ASSISTANTS)
        self.get(f"/v1/assistants/{assistant['id']}", **ASSISTANTS)
        thread = f"/v1/threads/{self.post('/v1/threads', {}, **ASSISTANTS)['id']}"
        message = {"role": "user", "content": "tools"}
        message = self.post(f"{thread}/messages", message, **ASSISTANTS)
        run = self.post(f"{thread}/runs", {"assistant_id": assistant["id"]}, **ASSISTANTS)
        place = f"{thread}/runs/{run['id']}"
        self.now += 5
        asked = self.get(place, **ASSISTANTS)["required_action"]["submit_tool_outputs"]
        outputs = [{"tool_call_id": one["id"], "output": "seen"} for one in asked["tool_calls"]]
        self.post(f"{place}/submit_tool_outputs", {"tool_outputs": outputs}, **ASSISTANTS)
        self.now += 5
        assert self.get(place, **ASSISTANTS)["status"] == "completed"
        self.get(thread, **ASSISTANTS)
        self.get(f"{thread}/runs", **ASSISTANTS)
        self.get(f"{thread}/messages/{message['id']}", **ASSISTANTS)
        messages = self.get(f"{thread}/messages", **ASSISTANTS)["data"]
        said = [one for one in messages if one["run_id"] == run["id"]]
        assert [one["content"][0]["text"]["value"] for one in said] == ["tool said: seen"]
        late = self.post(f"{thread}/runs", {"assistant_id": assistant["id"]}, **ASSISTANTS)
        self.post(f"{thread}/runs/{late['id']}/cancel", {}, **ASSISTANTS)
        self.delete(thread, ASSISTANTS["headers"])

    def use_sessions(self):
        body = {"agent": {"model": "m"}, "input": "tools", **HOSTED}
        made = self.post("/v1/agents/sessions", body, **AGENTS)
        place = f"/v1/agents/sessions/{made['id']}"
        self.get("/v1/agents/sessions", **AGENTS)
        (action,) = self.get(place, **AGENTS)["required_actions"]
        turn = self.get(f"{place}/turns", **AGENTS)["data"][0]
        result = {"type": "agent.session.input.tool_result", "turn_id": turn["id"], "output": "so"}
        result["call_id"] = action["call_id"]
        self.post(f"{place}/events", {"events": [result]}, status=202, **AGENTS)
        self.now += 5
        assert self.get(f"{place}/turns/{turn['id']}", **AGENTS)["status"] == "completed"
        self.get(f"{place}/turns/{turn['id']}/items", **AGENTS)
        items = self.get(f"{place}/items", **AGENTS)["data"]
        assert items[0]["content"][0]["text"] == "tool said: so"
        feed = get(self.emulator, f"{place}/events", now=self.now, **AGENTS).feed
        assert feed.take(self.now) == []
        self.delete(place, AGENTS["headers"])

    def use_batches(self):
        batch = start_batch(self.emulator, chat_line("a"), CHAT, self.now)
        self.get("/v1/batches")
        self.now += 60
        output = self.get(f"/v1/batches/{batch}")["output_file_id"]
        line = self.get(f"/v1/files/{output}/content")
        answer = json.loads(line["response"]["body"])
        assert answer["choices"][0]["message"]["content"] == "hello"
        cancelled = start_batch(self.emulator, chat_line("b"), CHAT, self.now)
        self.post(f"/v1/batches/{cancelled}/cancel")
        self.get("/v1/files")
        self.get(f"/v1/files/{output}")
        self.delete(f"/v1/files/{output}")

    def use_the_rest(self):
        said = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        assert self.post("/v1/chat/completions", said)["choices"][0]["message"]["content"] == "x"
        self.post("/v1/completions", {"model": "m", "prompt": "x"})
        self.post("/v1/embeddings", {"model": "m", "input": "x"})
        self.post("/v1/moderations", {"input": "x"})
        self.get("/v1/models")
        self.get("/v1/models/m")


def test_a_good_client_gets_along_with_all_of_them():
    """With `all`, every route that is left does its work for who asks again and looks closely."""
    emulator = emulator_with(*parse_deviations("all"))
    client = PatientClient(emulator)
    for _ in range(3):
        client.use_responses()
        client.use_assistants()
        client.use_sessions()
        client.use_batches()
        client.use_the_rest()

    there = {route.name for family in FAMILIES for route in family.ROUTES}
    lacking = {name for names in LACKING.values() for name in names}
    assert emulator.books.snapshot(client.now)["calls"].keys() == there - lacking
    assert lacking < there
