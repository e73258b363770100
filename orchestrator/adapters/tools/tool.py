"""One tool: a handler, what the model is told of it, and the check of what it is passed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.adapters.tools.arguments import Arguments
from orchestrator.adapters.tools.signature import Handler, read_signature


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """What the model is told of a tool; each API family puts it into its own form.

    `parameters` is a JSON schema of type object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A handler that the model can call. Make it with `Tool.of`."""

    schema: ToolSchema
    handler: Handler = field(repr=False)
    arguments: Arguments = field(repr=False)
    filled_in: frozenset[str]  # of call_id and custom_id, those that the handler asks for
    is_async: bool

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.schema.name

    @classmethod
    def of(cls, function: Handler) -> "Tool":
        """Make a tool of a function, a bound method, a partial or an object with `__call__`.

        The name is the function's (or the object's class's), the descriptions come from the
        docstring, the schema from the annotations; `Annotated[..., Field(...)]` refines it. A
        parameter named `call_id` or `custom_id`, annotated as str, is filled in by the engine
        and not shown to the model: with it a handler can recognise a call that is repeated after
        a crash. What a partial has bound is not shown either.

        Raises:
            ToolUnusable: The model could not call it by name with JSON arguments.
        """
        signature = read_signature(function)
        arguments = Arguments.of(function, signature.parameters)
        return cls(
            schema=ToolSchema(signature.name, signature.description, arguments.json_schema()),
            handler=function,
            arguments=arguments,
            filled_in=signature.filled_in,
            is_async=signature.is_async,
        )
