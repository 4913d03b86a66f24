"""JSON Schema of the types that check requests and describe answers, as OpenAPI 3.1 takes it."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

from pydantic import BaseModel, TypeAdapter

from fleetpulse.master.api.operations import Route
from fleetpulse.master.api.problem_answers import Problem

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"
_Key = tuple[Any, Literal["validation", "serialization"]]


class Schemas:
    """The schemas of everything in a table of routes. ``components`` are those that others refer to by name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        kinds = [*_kinds_of(routes), (Problem, "serialization")]
        inputs = [(number, mode, TypeAdapter(kind)) for number, (kind, mode) in enumerate(kinds)]
        by_key, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)
        self._schemas = [(kind, by_key[number, mode]) for number, (kind, mode) in enumerate(kinds)]
        components = definitions.get("$defs", {})
        self._queries = {model: components.pop(model.__name__) for model in _queries_of(routes)}
        self.components: Schema = {name: _tidy(schema) for name, schema in sorted(components.items())}

    def of(self, kind: Any) -> Schema:
        """Of a type in the table."""
        return cast("Schema", _tidy(next(schema for known, schema in self._schemas if known == kind)))

    def query(self, model: type[BaseModel]) -> Iterator[tuple[str, Schema, bool]]:
        """Of each parameter of a query: name, schema, and whether it must be there."""
        schema = self._queries[model]
        required = schema.get("required", ())
        for name, parameter in schema.get("properties", {}).items():
            yield name, _said_or_not(_tidy(parameter)), name in required


def _queries_of(routes: Iterable[Route]) -> set[type[BaseModel]]:
    return {operation.query for route in routes for operation in route.operations if operation.query is not None}


def _kinds_of(routes: Iterable[Route]) -> Iterator[_Key]:
    for route in routes:
        for operation in route.operations:
            if operation.query is not None:
                yield operation.query, "validation"
            if operation.body is not None:
                yield operation.body.model, "validation"
            for answer in operation.answers:
                for kind in answer.content.values():
                    yield kind, "serialization"


def _said_or_not(schema: Schema) -> Schema:
    """Of a parameter: one that may be left out is ``None`` to the model, but nobody can say that in a query."""
    alternatives = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    # Nor does it harm to say one thing twice.
    schema = {key: value for key, value in schema.items() if key != "uniqueItems"}
    rest = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    if not alternatives:
        return rest
    return {**alternatives[0], **rest} if len(alternatives) == 1 else {"anyOf": alternatives, **rest}


def _tidy(schema: Any) -> Any:
    """Without titles, which pydantic makes of names, and with descriptions as one line of Markdown."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tidied: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            tidied[key] = {name: _tidy(each) for name, each in value.items()}
        elif key == "description" and isinstance(value, str):
            tidied[key] = " ".join(value.split()).replace("``", "`")
        elif key != "title":
            tidied[key] = _tidy(value)
    return tidied
