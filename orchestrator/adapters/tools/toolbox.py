"""Answers the model's tool calls: checks them, runs the handlers, and tells what went wrong.

Rules: `Toolbox.call` gives an output for every call, whatever the model wrote and whatever the
handler does. Only cancellation by the engine and the user's Ctrl-C pass through it.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pydantic_core
from pydantic import ValidationError

from orchestrator.adapters.tools.arguments import ARGUMENTS_CHARACTERS_MAX, problems_of
from orchestrator.adapters.tools.signature import Handler, unusable
from orchestrator.adapters.tools.tool import Tool, ToolSchema
from orchestrator.core.model import Request, ToolCall, ToolOutput
from orchestrator.errors import SettingUnusable

# What is told to the model is short: it pays for every token, and an error may quote a whole page.
ERROR_CHARACTERS_MAX = 2_000

# The longest name that the API accepts; the model may have made up a longer one.
_NAME_CHARACTERS_MAX = 64

# Threads for sync handlers, of our own: the journal and others wait for those of anyio's default
# limiter, which has 40 as well.
SYNC_HANDLERS_MAX = 40

_CUT = "\n[Cut: the output had {} characters, the limit is {}. Ask for less.]"


class _Failure(Exception):  # noqa: N818 # it never leaves this file; it carries what the model is told
    """A call that gives no output but an explanation."""


class Toolbox:
    """The tools of an execution.

    `tool_timeout_seconds` is the time that one call may take. An async handler is cancelled when
    it is over. A sync handler runs in a thread, and a thread can't be stopped: it goes on to its
    end and its result is dropped. At most 40 sync handlers run at once; waiting for a thread does
    not count. How many async ones run at once is for the caller to limit.

    `output_characters_max` is the longest output that is passed on; what is longer is cut, with a
    note at its end, and counts as failed, because cut JSON is no JSON any more.

    Raises:
        ToolUnusable: A function can't be a tool, or two tools have the same name.
        SettingUnusable: A limit is not positive.
    """

    def __init__(
        self,
        functions: Iterable[Handler | Tool],
        *,
        tool_timeout_seconds: float = 60.0,
        output_characters_max: int = 1_000_000,
    ) -> None:
        _check_positive("tool_timeout_seconds", tool_timeout_seconds)
        _check_positive("output_characters_max", output_characters_max)
        self._tool_timeout_seconds = tool_timeout_seconds
        self._output_characters_max = output_characters_max
        self._threads = anyio.CapacityLimiter(SYNC_HANDLERS_MAX)
        self._tools: dict[str, Tool] = {}
        for function in functions:
            tool = function if isinstance(function, Tool) else Tool.of(function)
            if tool.name in self._tools:
                problem = "another tool has the same name"
                raise unusable(tool.handler, problem, "Rename one of the two functions.")
            self._tools[tool.name] = tool

    def __bool__(self) -> bool:
        return bool(self._tools)

    @property
    def names(self) -> tuple[str, ...]:
        """What the model calls the tools, in the order in which the functions were given."""
        return tuple(self._tools)

    @property
    def schemas(self) -> tuple[ToolSchema, ...]:
        """What the model is told, in the order in which the functions were given."""
        return tuple(tool.schema for tool in self._tools.values())

    async def call(self, call: ToolCall, request: Request) -> ToolOutput:
        """Run the tool that the model asks for, and give what it returned as text.

        A str goes out as it is, everything else as JSON; a handler that returns nothing gives
        `null`, since some servers refuse an empty output. What goes wrong is told to the model
        as `{"error": "..."}`, with `failed` set: an unknown tool, arguments that do not fit, a
        handler that raises (its type and message, no traceback), the time limit, an output that
        has no JSON form. An async handler runs in the caller's task.

        Raises nothing but the caller's own cancellation and KeyboardInterrupt.
        """
        try:
            tool = self._named(call.name)
            arguments = _arguments(tool, call)
            filled_in = {"call_id": call.call_id, "custom_id": request.custom_id}
            arguments.update({name: filled_in[name] for name in tool.filled_in})
            text = _as_text(tool, await self._run(tool, arguments))
        except _Failure as failure:
            message = _utf8(_cut(str(failure), ERROR_CHARACTERS_MAX, "..."))
            error = msgspec.json.encode({"error": message}).decode()
            return ToolOutput(call.call_id, error, failed=True)
        limit = self._output_characters_max
        output = _cut(_utf8(text), limit, _CUT.format(len(text), limit))
        return ToolOutput(call.call_id, output, failed=len(text) > limit)

    def _named(self, name: str) -> Tool:
        tool = self._tools.get(name)
        if tool is None:
            known = f"The tools are: {', '.join(self._tools)}." if self else "There are no tools."
            message = f"There is no tool {name[:_NAME_CHARACTERS_MAX]!r}. {known}"
            raise _Failure(message)
        return tool

    async def _run(self, tool: Tool, arguments: dict[str, Any]) -> Any:
        handler = partial(tool.handler, **arguments)
        if tool.is_async:
            return await self._within_time(tool, handler)
        async with self._threads:
            return await self._within_time(tool, partial(_in_thread, handler))

    async def _within_time(self, tool: Tool, handler: Callable[[], Any]) -> Any:
        # Not fail_after: the handler's own TimeoutError must not be taken for ours.
        with anyio.move_on_after(self._tool_timeout_seconds) as limit:
            try:
                return await handler()
            except BaseException as error:
                if _passes_through(error):
                    raise
                if not limit.cancel_called:
                    message = f"The tool {tool.name} failed: {_described(error)}"
                    raise _Failure(message) from error
        message = f"The tool {tool.name} gave no answer within {self._tool_timeout_seconds:g} s."
        raise _Failure(message)


async def _in_thread(handler: Callable[[], Any]) -> Any:
    # The toolbox has limited the threads already; waiting here would be inside the time limit.
    unlimited = anyio.CapacityLimiter(1)
    value = await anyio.to_thread.run_sync(handler, abandon_on_cancel=True, limiter=unlimited)
    # A decorator that is not async itself may wrap a handler that is.
    return await value if inspect.isawaitable(value) else value


def _passes_through(error: BaseException) -> bool:
    """Whether an exception is not the handler's affair but ends the handler."""
    if isinstance(error, asyncio.CancelledError):
        # A handler can raise this by itself, for example by awaiting a task that was cancelled.
        # Only when somebody cancels this task is the count above zero.
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return any(isinstance(each, KeyboardInterrupt | GeneratorExit) for each in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The error itself, or those in a group: what a task group raises says nothing of its own."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _described(error: BaseException) -> str:
    return "; ".join(_type_and_message(each) for each in _leaves(error))


def _type_and_message(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 # a broken __str__ of the user's is no reason to stop
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _arguments(tool: Tool, call: ToolCall) -> dict[str, Any]:
    refused = f"The arguments of {tool.name} can't be used: "
    if len(call.arguments) > ARGUMENTS_CHARACTERS_MAX:
        message = f"{refused}they are longer than {ARGUMENTS_CHARACTERS_MAX} characters."
        raise _Failure(message)
    try:
        return tool.arguments.parse(call.arguments)
    except ValidationError as error:
        message = f"{refused}{problems_of(error)}. Correct them and call it again."
        raise _Failure(message) from error
    except (Exception, SystemExit) as error:  # validators are the user's code and raise anything
        message = f"{refused}{_described(error)}. Correct them and call it again."
        raise _Failure(message) from error


def _as_text(tool: Tool, value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # of a str that is also an Enum, the value and not the name
    try:
        # NaN and infinity have no JSON form, and a word is better than an invalid text. msgspec
        # helps out with its own Structs.
        return pydantic_core.to_json(
            value, inf_nan_mode="strings", fallback=msgspec.to_builtins
        ).decode()
    except (Exception, SystemExit) as error:  # serialisers are the user's code and raise anything
        kind = type(value).__name__
        message = f"The output of {tool.name} ({kind}) has no JSON form: {_described(error)}"
        raise _Failure(message) from error


def _utf8(text: str) -> str:
    """The text without lone surrogates, which JSON may contain and no request can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut(text: str, characters_max: int, note: str) -> str:
    """The text, or as much of it as fits before the note; never longer than `characters_max`."""
    if len(text) <= characters_max:
        return text
    return (text[: max(0, characters_max - len(note))] + note)[:characters_max]


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        cure = "Give a number above 0."
        raise SettingUnusable(name=name, value=value, problem="it is not positive", cure=cure)
