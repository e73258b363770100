"""What a callable says of itself: its name, its description and its parameters.

The sources are the signature, its annotations and the docstring. Whatever cannot become a tool is
refused here, with the reason and the cure.
"""

import functools
import inspect
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, get_type_hints

import docstring_parser

from orchestrator.errors import ToolUnusable

Handler = Callable[..., Any]

# The names that the API accepts for a function.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

# The engine fills these in and the model never sees them. A handler asks for them by name, so that
# it can recognise a call that is made a second time, after a crash.
FILLED_IN = frozenset({"call_id", "custom_id"})

_NOT_BY_NAME: Mapping[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*{} takes any number of arguments",
    inspect.Parameter.VAR_KEYWORD: "**{} takes arguments of any name",
    inspect.Parameter.POSITIONAL_ONLY: "the parameter {} is positional-only",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a handler. `default` is `inspect.Parameter.empty` where there is none."""

    name: str
    annotation: Any
    default: Any
    description: str


@dataclass(frozen=True, slots=True)
class Signature:
    """Everything that a tool is made of. `filled_in` are the names that the engine passes."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    filled_in: frozenset[str]
    is_async: bool


def unusable(function: object, problem: str, cure: str) -> ToolUnusable:
    """The refusal of `function`, with its name and where it is written."""
    inner = _innermost(function)
    code = getattr(inner, "__code__", None)
    where = (
        f"{code.co_filename}, line {code.co_firstlineno}"
        if code
        else str(getattr(inner, "__module__", None) or type(inner).__module__)
    )
    return ToolUnusable(tool=_name(function), where=where, problem=problem, cure=cure)


def read_signature(function: object) -> Signature:
    """Read a function, a bound method, a partial or an object with `__call__`.

    Arguments that a partial has bound are the user's own: the model never sees them.

    Raises:
        ToolUnusable: The model could not call it by name with JSON arguments.
    """
    inner = _innermost(function)
    _refuse_what_is_no_function(function, inner)
    description, described = _read_docstring(function)
    parameters = tuple(
        Parameter(
            name=parameter.name,
            annotation=_resolved(function, inner, parameter),
            default=parameter.default,
            description=described.get(parameter.name, ""),
        )
        for parameter in _open_parameters(function)
    )
    for parameter in parameters:
        if parameter.name in FILLED_IN and parameter.annotation is not str:
            problem = f"the parameter {parameter.name} is filled in by the engine, with a str"
            cure = "Annotate it as str, or give it another name."
            raise unusable(function, problem, cure)
    return Signature(
        name=_name(function),
        description=description,
        parameters=tuple(each for each in parameters if each.name not in FILLED_IN),
        filled_in=frozenset(each.name for each in parameters if each.name in FILLED_IN),
        is_async=_is(inspect.iscoroutinefunction, function),
    )


def _refuse_what_is_no_function(function: object, inner: object) -> None:
    if not callable(function):
        problem = f"{reprlib.repr(function)} can't be called"
        raise unusable(function, problem, "Give a function.")
    if isinstance(inner, type):
        cure = "Give a function, or an object of the class with a __call__ method."
        raise unusable(function, "it is a class", cure)
    if _name(function) == "<lambda>":
        raise unusable(function, "a lambda has no name", "Write it as a function with def.")
    if not _NAME.fullmatch(_name(function)):
        problem = "the name of a tool has 1 to 64 of the characters a-z A-Z 0-9 _ -"
        raise unusable(function, problem, "Give the function another name.")
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        raise unusable(function, "it yields", "Return one value, for example a list.")


def _innermost(function: object) -> Any:
    """The function whose code runs in the end: it has the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    if _is_object_with_call(function):
        function = type(function).__call__
    return inspect.unwrap(function) if callable(function) else function


def _is_object_with_call(function: object) -> bool:
    if isinstance(function, type) or inspect.isroutine(function):
        return False
    return callable(function)


def _is(kind: Callable[[Any], bool], function: object) -> bool:
    """Whether calling `function` calls something of that kind; `inspect` does not look this far."""
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or kind(getattr(type(function), "__call__", None))  # noqa: B004 # its value, not whether it is there


def _name(function: object) -> str:
    name = getattr(function, "__name__", None)
    if isinstance(name, str):
        return name
    if isinstance(function, functools.partial):
        return _name(function.func)
    return type(function).__name__


def _read_docstring(function: object) -> tuple[str, Mapping[str, str]]:
    """The description of the tool and of its parameters, empty where nothing is written."""
    while isinstance(function, functools.partial):
        function = function.func
    text = inspect.getdoc(function) or ""
    if _is_object_with_call(function):
        text = inspect.getdoc(type(function).__call__) or text
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    parts = (parsed.short_description, parsed.long_description)
    described = {
        each.arg_name: " ".join((each.description or "").split()) for each in parsed.params
    }
    return "\n\n".join(part for part in parts if part), described


def _open_parameters(function: Any) -> Iterator[inspect.Parameter]:
    """The parameters that are not bound yet, each of them passable by name."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        problem, cure = "it does not tell its parameters", "Wrap it in a function of your own."
        raise unusable(function, problem, cure) from error
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound.update(function.keywords)
        function = function.func
    for parameter in signature.parameters.values():
        if parameter.kind in _NOT_BY_NAME:
            problem = _NOT_BY_NAME[parameter.kind].format(parameter.name)
            cure = "Name every argument: the model passes a JSON object."
            raise unusable(function, problem, cure)
        if parameter.name not in bound:
            yield parameter


def _resolved(function: object, inner: Any, parameter: inspect.Parameter) -> Any:
    """The annotation as a type, also where it is written as text."""
    name, annotation = parameter.name, parameter.annotation
    if annotation is inspect.Parameter.empty:
        problem = f"the parameter {name} has no type"
        cure = (
            f"Annotate it, for example {name}: str. If it is no tool, name it _{_name(function)}."
        )
        raise unusable(function, problem, cure)
    # One parameter at a time, and never the return type: it is often imported for type checkers
    # only, and the model has no use for it.
    alone = SimpleNamespace(__annotations__={name: annotation})
    try:
        hints = get_type_hints(alone, getattr(inner, "__globals__", {}), include_extras=True)
    except Exception as error:
        problem = f"the type of the parameter {name}, {annotation!r}, can't be resolved: {error}"
        cure = "Define or import the type at the top of the file, not for type checkers only."
        raise unusable(function, problem, cure) from error
    return hints[name]
