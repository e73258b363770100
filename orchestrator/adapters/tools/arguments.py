"""What a tool takes: the JSON schema that the model sees, and the check of what it passes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from orchestrator.adapters.tools.signature import Handler, Parameter, unusable

# A model writes up to 128,000 tokens in one go, about half a million characters; what is longer
# comes from something else and is not worth the memory.
ARGUMENTS_CHARACTERS_MAX = 1_000_000

# Enough to correct a call; the model reads every one of them.
_PROBLEMS_MAX = 20
_NAME_CHARACTERS_MAX = 100

_CONFIG = ConfigDict(extra="forbid")


class _Schema(GenerateJsonSchema):
    """Leaves out what costs tokens and says nothing, and keeps quiet about defaults of any type."""

    ignored_warning_kinds: ClassVar[set[JsonSchemaWarningKind]] = {  # type: ignore[misc] # pydantic does not call it ClassVar
        "skipped-choice",
        "non-serializable-default",
    }

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 # pydantic's signature
        return False


@dataclass(frozen=True, slots=True)
class Arguments:
    """The parameters of one handler, as the model may fill them."""

    model: type[BaseModel]
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, function: Handler, parameters: tuple[Parameter, ...]) -> "Arguments":
        """Prepare the check.

        Raises:
            ToolUnusable: A type has no form in JSON.
        """
        for parameter in parameters:  # one by one, so that the refusal can name it
            try:
                _model([parameter]).model_json_schema(schema_generator=_Schema)
            except (
                PydanticUserError,
                PydanticUndefinedAnnotation,
                pydantic_core.SchemaError,
                TypeError,
                ValueError,
            ) as error:
                reason = str(error).split("\n", maxsplit=1)[0]
                problem = f"the type of the parameter {parameter.name} has no JSON form: {reason}"
                cure = "Use str, int, list, dict, Literal, an Enum, a dataclass or a BaseModel."
                raise unusable(function, problem, cure) from error
        return cls(_model(parameters), parameters)

    def json_schema(self) -> Mapping[str, Any]:
        """The JSON schema of an object with these parameters and no others."""
        schema = self.model.model_json_schema(schema_generator=_Schema)
        schema.pop("title", None)
        for parameter in self.parameters:
            if parameter.description:
                schema["properties"][parameter.name].setdefault(
                    "description", parameter.description
                )
        return schema

    def parse(self, text: str) -> dict[str, Any]:
        """The handler's arguments by name; what is absent is left to the handler's own default.

        Raises:
            ValidationError: The text does not fit; `problems_of` says where.
            ValueError: The text is no JSON at all.
        """
        given = self.model.model_validate_json(_once_encoded(text))
        return {
            parameter.name: getattr(given, field)
            for field, parameter in zip(type(given).model_fields, self.parameters, strict=True)
            if field in given.model_fields_set or not _has_own_default(parameter)
        }


def problems_of(error: ValidationError) -> str:
    """What is wrong, argument by argument, without repeating what the model wrote."""
    problems = [
        f"{_path(each['loc'])}{each['msg']}"
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = len(problems) - _PROBLEMS_MAX
    if more > 0:
        problems[_PROBLEMS_MAX:] = [f"and {more} more"]
    return "; ".join(problems)


def _path(location: tuple[int | str, ...]) -> str:
    """Where in the arguments, for example `order.lines.0.price: `; empty for the whole."""
    path = ".".join(str(part)[:_NAME_CHARACTERS_MAX] for part in location)
    return f"{path[:_NAME_CHARACTERS_MAX]}: " if path else ""


def _model(parameters: Sequence[Parameter]) -> type[BaseModel]:
    # The parameter's name is the alias, because a field may not be called `json`, `copy` or `_id`.
    fields: dict[str, Any] = {
        f"argument_{number}": _field(parameter) for number, parameter in enumerate(parameters)
    }
    return create_model("Arguments", __config__=_CONFIG, **fields)


def _field(parameter: Parameter) -> tuple[Any, Any]:
    if isinstance(parameter.default, FieldInfo):
        annotated: Any = Annotated[parameter.annotation, parameter.default]
        return annotated, Field(alias=parameter.name)
    if _has_own_default(parameter):
        return parameter.annotation, Field(parameter.default, alias=parameter.name)
    return parameter.annotation, Field(alias=parameter.name)


def _has_own_default(parameter: Parameter) -> bool:
    """Whether Python fills it in; a default in pydantic's `Field` is for pydantic to fill in."""
    return parameter.default is not inspect.Parameter.empty and not isinstance(
        parameter.default, FieldInfo
    )


def _once_encoded(text: str) -> str:
    """The JSON text of the arguments: nothing means none, and an object encoded twice is opened."""
    text = text.strip()
    if text.startswith('"'):
        text = str(pydantic_core.from_json(text)).strip()
    return "{}" if text in {"", "null"} else text
