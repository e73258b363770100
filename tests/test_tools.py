"""Tools: what the model is told of them, how they are called, and how a file of them is loaded."""

import asyncio
import contextvars
import functools
import json
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer

from orchestrator.adapters.tools import Tool, Toolbox, load_tools
from orchestrator.core.model import Family, Request, ToolCall, ToolOutput
from orchestrator.errors import SettingUnusable, ToolsUnreadable, ToolUnusable

REQUEST = Request("row-7", "/v1/responses", Family.RESPONSES, "small", 10, body=None)
TENANT = contextvars.ContextVar("TENANT", default="nobody")


class Color(str, Enum):  # noqa: UP042 # users write it like this, and its str() is not its value
    RED = "red"


class Line(BaseModel):
    sku: str
    count: int = 1


@dataclass
class Point:
    x: int
    y: float


class Packed(msgspec.Struct):
    weight: int


async def order_status(order_id: str, limit: int = 5) -> str:
    """Look up an order.

    Only orders of this year
    are known.

    Args:
        order_id: The number on
            the invoice.
        limit: How many events to show.
    """
    return f"{order_id}/{limit}"


async def ask(function, arguments="{}", name=None, **settings):
    """Call one tool as the engine does."""
    toolbox = Toolbox([function], **settings)
    return await toolbox.call(ToolCall("call-1", name or toolbox.names[0], arguments), REQUEST)


async def told(function, arguments="{}", **settings):
    """What the model is told of a call that must fail."""
    output = await ask(function, arguments, **settings)
    assert (output.call_id, output.failed) == ("call-1", True)
    assert set(json.loads(output.output)) == {"error"}
    return json.loads(output.output)["error"]


def returning(value):
    """A tool that gives this value."""

    async def give():
        return value

    return give


def raising(error):
    """A tool that fails like this."""

    async def fail():
        raise error

    return fail


class TestSchema:
    def test_the_model_is_told_name_description_and_parameters(self):
        """Signature and docstring are all that a tool needs."""
        (schema,) = Toolbox([order_status]).schemas

        assert schema.name == "order_status"
        assert schema.description == "Look up an order.\n\nOnly orders of this year\nare known."
        assert schema.parameters == {
            "type": "object",
            "properties": {
                "order_id": {"type": "string", "description": "The number on the invoice."},
                "limit": {
                    "type": "integer",
                    "default": 5,
                    "description": "How many events to show.",
                },
            },
            "required": ["order_id"],
            "additionalProperties": False,
        }

    def test_a_tool_without_docstring_or_parameters_is_fine(self):
        """Nothing to say is no mistake."""
        schema = Tool.of(returning(1)).schema

        assert schema.description == ""
        assert schema.parameters == {
            "type": "object",
            "properties": {},
            "additionalProperties": False,
        }

    @pytest.mark.parametrize(
        ("annotation", "schema"),
        [
            (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 # users write it so
            (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
            (Color, {"$ref": "#/$defs/Color"}),
            (list[int], {"type": "array", "items": {"type": "integer"}}),
            (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
            (Line, {"$ref": "#/$defs/Line"}),
            (Point, {"$ref": "#/$defs/Point"}),
            (Annotated[int, Field(ge=1)], {"type": "integer", "minimum": 1}),
            (Annotated[int, Field(alias="other")], {"type": "integer"}),
            ("list[Line]", {"type": "array", "items": {"$ref": "#/$defs/Line"}}),
            (Any, {}),
        ],
    )
    def test_types_become_json_schema(self, annotation, schema):
        """All that pydantic knows can be a parameter."""

        def tool(value: annotation):
            pass

        parameters = Tool.of(tool).schema.parameters

        assert parameters["properties"] == {"value": schema}
        assert parameters["required"] == ["value"]

    def test_a_field_description_wins_over_the_docstring(self):
        """Who writes a description into the type means it."""

        def tool(a: Annotated[int, Field(description="from the type")]):
            """Do.

            Args:
                a: from the docstring
            """

        assert Tool.of(tool).schema.parameters["properties"]["a"]["description"] == "from the type"

    async def test_a_parameter_may_have_any_name_and_any_default(self):
        """Names that pydantic keeps for itself and defaults without a JSON form do no harm."""

        async def tool(json: int, copy: int, _id: int, model_config: int, spare: Any = object):
            return [json, copy, _id, model_config, spare is object]

        output = await ask(tool, '{"json": 1, "copy": 2, "_id": 3, "model_config": 4}')

        assert output.output == "[1,2,3,4,true]"

    async def test_a_default_in_a_field_reaches_the_handler(self):
        """`Field(default)` works like a default, in the annotation or behind the equals sign."""

        async def tool(a: Annotated[int, Field(default=1)], b: int = Field(2, ge=0)):
            return [a, b]

        assert (await ask(tool)).output == "[1,2]"

    def test_what_the_engine_fills_in_is_not_shown(self):
        """The model never sees call_id and custom_id."""

        def tool(a: int, call_id: str, custom_id: str):
            pass

        assert list(Tool.of(tool).schema.parameters["properties"]) == ["a"]


class Shop:
    """Knows prices."""

    async def price(self, sku: str) -> str:
        """Tell a price."""
        return f"price of {sku}"

    async def __call__(self, sku: str) -> str:
        """Tell whether it is there."""
        return f"{sku} is there"


class TestCallables:
    async def test_a_bound_method_is_a_tool(self):
        """Handlers can share a connection in an object."""
        assert Tool.of(Shop().price).schema.description == "Tell a price."
        assert (await ask(Shop().price, '{"sku": "a"}')).output == "price of a"

    async def test_an_object_with_call_is_a_tool(self):
        """It is named after its class."""
        assert Tool.of(Shop()).schema.description == "Tell whether it is there."
        assert (await ask(Shop(), '{"sku": "a"}', name="Shop")).output == "a is there"

    async def test_what_a_partial_has_bound_is_hidden_from_the_model(self):
        """A connection that is bound needs no JSON form."""

        async def find(connection: threading.Thread, sku: str, size: int = 1):
            """Find it."""
            return [connection, sku, size]

        for tool in (
            functools.partial(find, connection="db"),
            functools.partial(functools.partial(find, "db"), size=1),
        ):
            schema = Tool.of(tool).schema
            assert (schema.name, schema.description) == ("find", "Find it.")
            assert "connection" not in schema.parameters["properties"]
            assert (await ask(tool, '{"sku": "a"}')).output == '["db","a",1]'

    async def test_a_partial_of_an_async_object_is_async(self):
        """It must not run in a thread."""
        assert Tool.of(functools.partial(Shop())).is_async

    def test_a_bound_argument_of_a_partial_cannot_be_overridden(self):
        """The schema forbids what the user has settled."""
        tool = functools.partial(order_status, limit=1)

        assert list(Tool.of(tool).schema.parameters["properties"]) == ["order_id"]

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            ("def f(*rest: int): ...", r"\*rest takes any number"),
            ("def f(**rest: int): ...", r"\*\*rest takes arguments of any name"),
            ("def f(a: int, /): ...", "a is positional-only"),
            ("def f(a): ...", "a has no type"),
            ("def f(a: 'Missing'): ...", "Missing.*can't be resolved"),
            ("def f(a: 'list['): ...", "can't be resolved"),
            (
                "import threading\ndef f(ok: int, a: threading.Thread): ...",
                "parameter a has no JSON",
            ),
            ("from typing import Callable\ndef f(a: Callable[[], int]): ...", "no JSON form"),
            ("def f(call_id: int): ...", "call_id is filled in"),
            ("def f(): yield 1", "it yields"),
            ("async def f(): yield 1", "it yields"),
            ("f = lambda: 1", "a lambda has no name"),
            ("def größe(): ...\nf = größe", "1 to 64"),
            ("f = type('T', (), {})", "it is a class"),
            ("f = 5", "5 can't be called"),
            ("f = max", "does not tell its parameters|any number"),
        ],
    )
    def test_what_can_not_be_a_tool_is_refused(self, code, problem):
        """The refusal says what is wrong, where, and what to do."""
        names = {"__name__": "shop"}
        exec(compile(code, "shop.py", "exec"), names)  # noqa: S102 # the code is above

        with pytest.raises(ToolUnusable, match=problem) as caught:
            Tool.of(names["f"])

        assert caught.value.cure
        assert caught.value.where

    def test_the_refusal_names_file_and_line(self):
        """The user finds the function without searching."""

        def tool(a):
            pass

        with pytest.raises(ToolUnusable, match=r"'tool' in .*test_tools\.py, line \d+ can't"):
            Tool.of(tool)

    def test_the_return_type_need_not_exist(self):
        """It may be imported for type checkers only."""

        def tool(a: int) -> "Missing":  # noqa: F821 # that is the point
            pass

        assert Tool.of(tool).name == "tool"

    def test_two_tools_of_one_name_are_refused(self):
        """The model could not tell them apart."""
        with pytest.raises(ToolUnusable, match="another tool has the same name"):
            Toolbox([order_status, Tool.of(order_status)])

    def test_an_empty_toolbox_is_false(self):
        """So a request without tools is sent without tools."""
        assert not Toolbox([])
        assert Toolbox([order_status])
        assert Toolbox([order_status]).names == ("order_status",)

    @pytest.mark.parametrize("name", ["tool_timeout_seconds", "output_characters_max"])
    def test_limits_are_positive(self, name):
        """A limit of nothing is a mistake."""
        with pytest.raises(SettingUnusable, match=name):
            Toolbox([], **{name: 0})


class TestArguments:
    @pytest.mark.parametrize("arguments", ["", "  ", "null", "{}", '"{}"', '""'])
    async def test_nothing_means_no_arguments(self, arguments):
        """Models say nothing in many ways."""
        assert await ask(returning("done"), arguments) == ToolOutput("call-1", "done")

    @pytest.mark.parametrize(
        "arguments",
        ['{"order_id": "a", "limit": 3}', '{"order_id": "a", "limit": "3"}'],
    )
    async def test_arguments_are_converted_where_nothing_is_lost(self, arguments):
        """A "3" is as good as a 3."""
        assert (await ask(order_status, arguments)).output == "a/3"
        assert (await ask(order_status, json.dumps(arguments))).output == "a/3"

    async def test_types_arrive_as_objects(self):
        """A handler gets what its annotations say."""

        async def tool(line: Line, point: Point, color: Color, on: datetime):
            assert (line, point) == (Line(sku="a"), Point(1, 2.0))
            assert color is Color.RED
            return on.year

        arguments = {"line": {"sku": "a"}, "point": {"x": 1, "y": 2}, "color": "red"}
        arguments["on"] = "2026-11-21T00:00:00Z"

        assert (await ask(tool, json.dumps(arguments))).output == "2026"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("{", "Invalid JSON"),
            ('"', "EOF while parsing a string"),
            ("[1]", "should be an object"),
            ("{}", "order_id: Field required"),
            ('{"order_id": 1}', "order_id: Input should be a valid string"),
            ('{"order_id": "a", "limit": 1.5}', "limit: Input should be a valid integer"),
            ('{"order_id": "a", "call_id": "x"}', "call_id: Extra inputs are not permitted"),
            ('{"limit": "x"}', "order_id: Field required; limit: Input should be"),
            ("[" * 100_000, "recursion limit"),
            ("\ud800", "unicode"),
            (" " * 1_000_001, "longer than 1000000 characters"),
        ],
    )
    async def test_bad_arguments_are_told_field_by_field(self, arguments, message):
        """The model can correct itself, and it reads neither links nor its own words again."""
        error = await told(order_status, arguments)

        assert error.startswith("The arguments of order_status can't be used: ")
        assert message in error
        assert "http" not in error

    async def test_huge_input_is_not_echoed(self):
        """What the model wrote costs enough once."""
        fields = {f"{n}{'x' * 10_000}": "y" * 10_000 for n in range(30)}

        error = await told(order_status, json.dumps({"order_id": ["z" * 10_000], **fields}))

        assert len(error) <= 2_000
        assert "yyy" not in error
        assert "zzz" not in error

    async def test_a_long_list_of_problems_is_cut(self):
        """Twenty are enough to begin with."""
        assert "; and 6 more." in await told(
            order_status, json.dumps({str(n): 1 for n in range(25)})
        )

    async def test_a_validator_that_breaks_is_told(self):
        """A validator is the user's code and can raise anything."""

        def check(value):
            return 1 / value

        async def tool(a: Annotated[int, AfterValidator(check)]):
            pass

        assert "ZeroDivisionError: division by zero" in await told(tool, '{"a": 0}')

    async def test_an_unknown_tool_is_told_with_the_known_ones(self):
        """The model invents names."""
        error = await told(order_status, name="refund\ud800" + "x" * 1_000)

        assert error.startswith("There is no tool 'refund")
        assert error.endswith("The tools are: order_status.")
        assert len(error) < 150

    async def test_the_engine_fills_in_ids(self):
        """A handler can recognise a call that is repeated."""

        async def tool(call_id: str, custom_id: str):
            return [call_id, custom_id]

        assert (await ask(tool)).output == '["call-1","row-7"]'

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )

    @given(
        st.text()
        | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))
        | json_values.map(json.dumps)
        | json_values.map(lambda value: json.dumps({"order_id": value, "limit": value}))
    )
    async def test_whatever_the_model_writes_there_is_an_output(self, arguments):
        """No text breaks the engine, and every answer can be sent."""
        output = await ask(order_status, arguments)

        assert output.call_id == "call-1"
        assert output.output.encode()
        if output.failed:
            assert set(json.loads(output.output)) == {"error"}

    @given(
        text=st.text(),
        number=st.integers(),
        fraction=st.floats(allow_nan=False, allow_infinity=False),
        flags=st.lists(st.booleans()),
        table=st.dictionaries(st.text(), st.none() | st.integers(-(2**63), 2**63)),
    )
    async def test_well_typed_arguments_arrive_exactly(self, **given_values):
        """What fits is passed as it is."""
        got = {}

        async def tool(
            text: str,
            number: int,
            fraction: float,
            flags: list[bool],
            table: dict[str, int | None],
        ):
            got.update(text=text, number=number, fraction=fraction, flags=flags, table=table)

        assert not (await ask(tool, json.dumps(given_values))).failed
        assert got == given_values


class TestOutput:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("as it is", "as it is"),
            (Color.RED, "red"),
            (None, "null"),
            (Line(sku="a"), '{"sku":"a","count":1}'),
            (Point(1, 2.5), '{"x":1,"y":2.5}'),
            (Packed(3), '{"weight":3}'),
            ({1: {Decimal("1.50")}}, '{"1":["1.50"]}'),
            ([datetime(2026, 11, 21, tzinfo=UTC)], '["2026-11-21T00:00:00Z"]'),
            ([float("nan"), float("-inf")], '["NaN","-Infinity"]'),
            ("\ud800 ä", "? ä"),
        ],
    )
    async def test_what_a_handler_returns_becomes_text(self, value, text):
        """Text as it is, everything else as JSON."""
        assert await ask(returning(value)) == ToolOutput("call-1", text)

    @pytest.mark.parametrize("value", [object(), b"\xff", [len], {"a": "\ud800"}])
    async def test_a_value_without_json_form_is_told(self, value):
        """The mistake is the handler's, but the run goes on."""
        assert "has no JSON form" in await told(returning(value))

    async def test_a_value_that_contains_itself_is_told(self):
        """There is no end to it."""
        value = []
        value.append(value)

        assert "Circular reference" in await told(returning(value))

    async def test_a_serializer_that_breaks_is_told(self):
        """A serializer is the user's code and can raise anything."""

        class Broken(BaseModel):
            a: Annotated[int, PlainSerializer(lambda value: value / 0)] = 1

        assert "division by zero" in await told(returning(Broken()))

    async def test_a_long_output_is_cut_with_a_note(self):
        """The model is told that there was more, and the books say that it failed."""
        fits = await ask(returning("x" * 200), output_characters_max=200)
        cut = await ask(returning("x" * 201), output_characters_max=200)

        assert fits == ToolOutput("call-1", "x" * 200)
        assert len(cut.output) == 200
        assert cut.output.startswith("xxx")
        assert cut.output.endswith(
            "[Cut: the output had 201 characters, the limit is 200. Ask for less.]"
        )
        assert cut.failed


class Unprintable(Exception):  # noqa: N818 # it is a broken one
    def __str__(self):
        raise RuntimeError


class TestFailure:
    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ValueError("no such order"), "ValueError: no such order"),
            (ValueError(), "ValueError"),
            (TimeoutError("of its own"), "TimeoutError: of its own"),
            (SystemExit(3), "SystemExit: 3"),
            (asyncio.CancelledError(), "CancelledError"),
            (StopIteration(), "RuntimeError: coroutine raised StopIteration"),
            (
                ExceptionGroup("a group", [ValueError("a"), KeyError("b")]),
                "ValueError: a; KeyError: 'b'",
            ),
            (ValueError("\ud800"), "ValueError: ?"),
            (Unprintable(), "Unprintable"),
        ],
    )
    async def test_what_a_handler_raises_is_told(self, error, message):
        """Type and message, no traceback, and the engine lives."""
        assert await told(raising(error)) == f"The tool fail failed: {message}"

    async def test_a_long_message_is_cut(self):
        """Some errors quote a whole page."""
        error = await told(raising(ValueError("x" * 10_000)))

        assert len(error) == 2_000
        assert error.endswith("xxx...")

    @pytest.mark.parametrize(
        "error", [KeyboardInterrupt(), BaseExceptionGroup("group", [KeyboardInterrupt()])]
    )
    async def test_ctrl_c_passes_through(self, error):
        """Who presses it means the whole program."""
        call = ask(raising(error))

        with pytest.raises(type(error)):
            call.send(None)

    async def test_a_slow_handler_is_ended_and_told(self):
        """It can clean up, and its time is counted exactly."""
        loop, events = asyncio.get_running_loop(), []

        async def slow():
            try:
                await asyncio.sleep(3_600)
            finally:
                events.append(loop.time())

        start = loop.time()

        assert await told(slow, tool_timeout_seconds=2.5) == (
            "The tool slow gave no answer within 2.5 s."
        )
        assert events == [pytest.approx(start + 2.5, abs=0.001)]

    async def test_an_error_while_being_ended_is_still_a_timeout(self):
        """What breaks in the clean-up is not the reason."""

        async def slow():
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                message = "connection lost"
                raise ConnectionError(message) from None

        assert "gave no answer" in await told(slow)

    async def test_awaiting_a_cancelled_task_is_the_handlers_own_failure(self):
        """It looks like a cancellation, but nobody cancelled the engine."""

        async def tool():
            task = asyncio.create_task(asyncio.sleep(3_600))
            task.cancel()
            await task

        assert "CancelledError" in await told(tool)

    async def test_the_engine_can_cancel_a_call(self):
        """Both kinds of cancellation pass through: a scope's and a task's."""

        async def slow():
            await asyncio.sleep(30)

        with anyio.move_on_after(1) as scope:
            await ask(slow)
        task = asyncio.create_task(ask(slow))
        await asyncio.sleep(1)
        task.cancel()

        assert scope.cancelled_caught
        with pytest.raises(asyncio.CancelledError):
            await task


class TestConcurrency:
    async def test_calls_of_an_async_tool_overlap(self):
        """Two calls that wait take as long as one, each in its caller's task."""
        loop, tasks = asyncio.get_running_loop(), []

        async def slow():
            tasks.append(asyncio.current_task())
            await asyncio.sleep(10)

        toolbox, start = Toolbox([slow]), loop.time()
        async with asyncio.TaskGroup() as group:
            made = [
                group.create_task(toolbox.call(ToolCall(str(number), "slow", ""), REQUEST))
                for number in range(2)
            ]

        assert loop.time() - start == pytest.approx(10, abs=0.001)
        assert tasks == made
        assert [task.result().call_id for task in made] == ["0", "1"]

    @pytest.mark.real_time
    async def test_a_sync_tool_runs_in_a_thread_with_the_callers_context(self):
        """It may block, and it knows for whom it works."""

        def tool(a: int):
            return [a, TENANT.get(), threading.current_thread() is threading.main_thread()]

        TENANT.set("acme")

        assert (await ask(tool, '{"a": 1}')).output == '[1,"acme",false]'

    @pytest.mark.real_time
    @pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), asyncio.CancelledError()])
    async def test_what_a_sync_tool_raises_is_told(self, error):
        """A thread's error is no different."""

        def tool():
            raise error

        assert type(error).__name__ in await told(tool)

    @pytest.mark.real_time
    async def test_a_sync_wrapper_of_an_async_function_is_awaited(self):
        """Decorators often forget to be async."""

        def logged(function):
            @functools.wraps(function)
            def call(**arguments):
                return function(**arguments)

            return call

        assert (await ask(logged(order_status), '{"order_id": "a"}')).output == "a/5"

    @pytest.mark.real_time
    async def test_a_sync_tool_that_is_too_slow_is_left_behind(self):
        """A thread can't be stopped, but nobody waits for it."""
        may_end = threading.Event()

        def slow():
            may_end.wait(10)

        try:
            error = await told(slow, tool_timeout_seconds=0.02)
        finally:
            may_end.set()

        assert "no answer within 0.02 s" in error

    @pytest.mark.real_time
    async def test_waiting_for_a_thread_does_not_count(self):
        """Forty sync calls run at once; the last ones start late and still have their time."""
        running, most = set(), []

        def slow():
            running.add(threading.get_ident())
            most.append(len(running))
            threading.Event().wait(0.05)
            running.discard(threading.get_ident())

        # Eleven rounds of 0.05 s on 40 threads: the last round starts when 0.5 s are over.
        toolbox = Toolbox([slow], tool_timeout_seconds=0.5)
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(toolbox.call(ToolCall(str(number), "slow", ""), REQUEST))
                for number in range(440)
            ]

        assert not [call.result() for call in calls if call.result().failed]
        assert max(most) == 40


@pytest.fixture
def tools_file(tmp_path):
    """Writes a tools.py and the files beside it."""

    def write(source, folder="job", **siblings):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in {"tools": source, **siblings}.items():
            (tmp_path / folder / f"{name}.py").write_text(text, encoding="utf-8")
        return tmp_path / folder / "tools.py"

    return write


def names(functions):
    return [function.__name__ for function in functions]


class TestLoading:
    def test_public_functions_are_tools_in_source_order(self, tools_file):
        """What is imported, private or a class is none."""
        path = tools_file(
            "from json import dumps\n"
            "class Order: ...\n"
            "def _inner(): ...\n"
            "def zebra(): ...\n"
            "async def apple(): ...\n"
            "again = zebra\n"
        )

        assert names(load_tools(path)) == ["zebra", "apple"]

    def test_a_list_of_tools_wins(self, tools_file):
        """`TOOLS` says exactly which, imported ones included."""
        path = tools_file("from json import dumps\ndef a(): ...\nTOOLS = [dumps]\n")

        assert names(load_tools(path)) == ["dumps"]

    def test_siblings_can_be_imported_and_the_path_is_left_alone(self, tools_file):
        """The folder is on sys.path only while the file loads, also when that fails."""
        good = tools_file("import prices\ndef tool(): return prices.A", prices="A = 1")
        bad = tools_file("1 / 0", folder="bad")
        before = list(sys.path)

        (tool,) = load_tools(good)
        with pytest.raises(ToolsUnreadable):
            load_tools(bad)

        assert tool() == 1
        assert sys.path == before

    def test_each_folder_gets_its_own_siblings(self, tools_file):
        """Two jobs may both have a prices.py and a tools.py."""
        source = "import prices\ndef tool(): return prices.A"
        (one,) = load_tools(tools_file(source, folder="one", prices="A = 1"))
        (two,) = load_tools(tools_file(source, folder="two", prices="A = 2"))

        assert (one(), two()) == (1, 2)

    def test_the_module_hides_no_other(self, tools_file):
        """A file named like a library does not replace it."""
        before = sys.modules.get("tools")

        (tool,) = load_tools(tools_file("def tool(): ..."))

        assert sys.modules.get("tools") is before
        assert sys.modules[tool.__module__].tool is tool

    async def test_types_written_as_text_are_found_after_loading(self, tools_file):
        """`from __future__ import annotations` and dataclasses work in a tools file."""
        path = tools_file(
            "from __future__ import annotations\n"
            "from dataclasses import dataclass\n"
            "@dataclass\n"
            "class Inner:\n    a: int\n"
            "@dataclass\n"
            "class Outer:\n    inner: Inner\n"
            "async def tool(outer: Outer) -> int:\n    return outer.inner.a\n"
        )

        (tool,) = load_tools(path)

        assert (await ask(tool, '{"outer": {"inner": {"a": 4}}}')).output == "4"

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            ("x = 1\ndef f(:\n", r"tools\.py, line 2: invalid syntax"),
            ("def f():\nreturn 1\n", r"tools\.py, line 2: expected an indented block"),
            (
                "x = 1\n\nimport no_such_module_x\n",
                r"tools\.py, line 3: ModuleNotFoundError: No module",
            ),
            ("import json\njson.loads('{')\n", r"tools\.py, line 2: JSONDecodeError"),
            ("import sys\nsys.exit(4)\n", r"tools\.py, line 2: SystemExit: 4"),
            ("import broken\n", r"broken\.py, line 2: ZeroDivisionError"),
            ("import unreadable\n", r"unreadable\.py, line 1: .*syntax"),
            ("", r"tools\.py, line 1: there is no public function"),
            ("TOOLS = []", "TOOLS is not a list of functions, or it is empty"),
            ("TOOLS = 5", "TOOLS is not a list of functions"),
            ("TOOLS = [5]", "TOOLS contains 5, which can't be called"),
            ("x = '\0'", r"tools\.py.*null bytes"),
        ],
    )
    def test_a_file_that_can_not_be_loaded_is_refused(self, tools_file, source, problem):
        """The refusal names file and line and says what to do, without a traceback."""
        path = tools_file(source, broken="x = 1\n1 / 0\n", unreadable="?\n")

        with pytest.raises(ToolsUnreadable, match=problem) as caught:
            load_tools(path)

        assert caught.value.path == path
        assert caught.value.cure
        assert "Traceback" not in str(caught.value)

    @pytest.mark.parametrize(("name", "problem"), [("", "a folder"), ("none.py", "no such file")])
    def test_a_path_that_is_no_file_is_refused(self, tmp_path, name, problem):
        """A wrong path is told as such."""
        with pytest.raises(ToolsUnreadable, match=problem):
            load_tools(tmp_path / name)
