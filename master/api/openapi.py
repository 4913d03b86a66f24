"""The table of routes as an OpenAPI document: https://spec.openapis.org/oas/v3.1.1.html

Requests are described by the pydantic types that validate them, answers by the ``msgspec`` types that they are.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from pydantic import BaseModel

from fleetpulse.master.access.tokens import GRANTED, Role
from fleetpulse.master.api.operations import EVERYWHERE, PATH_FIELDS, Answer, Operation, Route
from fleetpulse.master.api.problems import PROBLEM_TYPE, TEXT_BY_STATUS, Problem

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/{}"
_PROBLEM = "Problem{}"
_FIELD = re.compile(r"\{(\w+)\}")

_TEXT = """A fleet of machines and the Docker tasks that run on it.

Every `GET` path answers `HEAD` as well, and every path `OPTIONS`; another method is a 405 whose `Allow` lists those
that the path takes. Answers above 1,400 bytes are compressed for clients that send `Accept-Encoding: gzip`. A reading
that a machine does not give is `null`, never 0. Every error is a problem as RFC 9457 has it."""

_BEARER = """Of `fleetpulse token create`. Wanted from the first token on, and always where the master listens beyond
its machine. Prometheus may send it as the password of Basic, which then reads at most."""

_TEXT_BY_ROLE = {
    Role.OPEN: "For everybody.",
    **{role: f"Takes the role `{name}`." for name, role in GRANTED.items()},
}

_TAGS = {
    "Master": "The master itself, and this reference.",
    "Workers": "The machines, their readings, and whether they get tasks.",
    "Tasks": "Docker images to run: submit them, look at them, cancel them, read their logs.",
    "Prometheus": "What Prometheus scrapes, and whom it may scrape.",
    "Page": "For people with a browser.",
}


class Schemas:
    """The JSON Schemas of every type in a table of routes. ``components`` are those that others refer to by name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        operations = [operation for route in routes for operation in route.operations]
        answers = [kind for each in operations for answer in each.answers for kind in answer.content.values()]
        kinds = list(dict.fromkeys([*answers, Problem]))
        schemas, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE.format("{name}"))
        self._by_kind = dict(zip(kinds, schemas, strict=True))
        for struct in {struct for kind in kinds for struct in _structs_in(kind)}:
            _describe(struct, components[struct.__name__])
        self._by_query: dict[type[BaseModel], Schema] = {}
        for operation in operations:
            if operation.query is not None:
                self._by_query[operation.query] = _request_schema(operation.query, components)
            if operation.body is not None:
                model = operation.body.model
                components[model.__name__] = _request_schema(model, components)
                self._by_kind[model] = {"$ref": _REFERENCE.format(model.__name__)}
        self.components: Schema = {name: _tidy(schema) for name, schema in sorted(components.items())}

    def of(self, kind: Any) -> Schema:
        """The schema of the type of an answer or of a body."""
        schema: Schema = _tidy(self._by_kind[kind])
        return schema

    def query(self, model: type[BaseModel]) -> Iterator[tuple[str, Schema, bool]]:
        """The parameters of a query: name, schema, and whether it is required."""
        schema = self._by_query[model]
        for name, parameter in schema.get("properties", {}).items():
            yield name, _parameter(_tidy(parameter)), name in schema.get("required", ())


def _request_schema(model: type[BaseModel], components: Schema) -> Schema:
    """The schema of a request; what it refers to is added to the components."""
    schema = model.model_json_schema(ref_template=_REFERENCE.format("{model}"))
    components |= schema.pop("$defs", {})
    return schema


def _structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        parts: Iterable[Any] = get_type_hints(kind).values()
    else:
        parts = get_args(kind)
    for part in parts:
        yield from _structs_in(part)


def _describe(struct: type[msgspec.Struct], schema: Schema) -> None:
    """Add what the schema of a struct does not say by itself: it has no other fields, and what each field means."""
    schema["additionalProperties"] = False
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    if not struct.__struct_config__.omit_defaults:
        # Defaults are for the master's own code: an answer always has every field.
        schema["required"] = list(names.values())
        for field_schema in schema["properties"].values():
            field_schema.pop("default", None)
    for cls in reversed(struct.__mro__[:-2]):  # without Struct and object
        for field, text in _field_texts(inspect.getfile(cls)).get(cls.__name__, {}).items():
            schema["properties"][names[field]]["description"] = text


@cache
def _field_texts(source: str) -> dict[str, dict[str, str]]:
    """By class and field of a source file, the docstring below the field. Reads the file."""
    classes = [node for node in ast.parse(Path(source).read_bytes()).body if isinstance(node, ast.ClassDef)]
    texts: dict[str, dict[str, str]] = {cls.name: {} for cls in classes}
    for cls in classes:
        for statement in pairwise(cls.body):
            match statement:
                case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[cls.name][field] = text
    return texts


def _parameter(schema: Schema) -> Schema:
    """One that may be left out is ``None`` to the model, but a query cannot say that; it may repeat a value."""
    schema.pop("uniqueItems", None)
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    alternatives = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    return {**alternatives[0], **schema} if len(alternatives) == 1 else {**schema, **_any_of(alternatives)}


def _any_of(alternatives: list[Schema]) -> Schema:
    return {"anyOf": alternatives} if alternatives else {}


def _tidy(schema: Any) -> Any:
    """Without titles, which are made of names, and with descriptions as one line of Markdown."""
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


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole document. Takes some tens of milliseconds, so it is made once."""
    schemas = Schemas(routes)
    used = {route.tag for route in routes}
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "FleetPulse",
            "version": version,
            "description": _TEXT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items() if tag in used],
        "paths": {route.path: _path(route, schemas) for route in routes},
        # Each may be asked with a token, and without one while none was made.
        "security": [{"token": []}, {}],
        "components": {
            "schemas": schemas.components,
            "responses": _problems(routes, schemas),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        },
    }


def _path(route: Route, schemas: Schemas) -> dict[str, Any]:
    item: dict[str, Any] = {
        operation.method.lower(): _operation(operation, route.tag, schemas) for operation in route.operations
    }
    fields = [_path_parameter(name) for name in _FIELD.findall(route.path)]
    return {"parameters": fields, **item} if fields else item


def _path_parameter(name: str) -> dict[str, Any]:
    text, pattern = PATH_FIELDS[name]
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _operation(operation: Operation, tag: str, schemas: Schemas) -> dict[str, Any]:
    said: dict[str, Any] = {"operationId": operation.name, "tags": [tag], "summary": operation.summary}
    said["description"] = " ".join(f"{operation.text} {_TEXT_BY_ROLE[operation.role]}".split())
    if parameters := [*_query(operation, schemas), *_headers(operation)]:
        said["parameters"] = parameters
    if (body := operation.body) is not None:
        content: dict[str, Any] = {"schema": schemas.of(body.model)}
        if body.example is not None:
            content["example"] = body.example
        said["requestBody"] = {"required": body.is_required, "content": {body.media_type: content}}
    said["responses"] = _responses(operation, schemas)
    return said


def _query(operation: Operation, schemas: Schemas) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    for name, schema, is_required in schemas.query(operation.query):
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": is_required}
        if (text := schema.pop("description", None)) is not None:
            parameter["description"] = text
        yield {**parameter, "schema": schema}


def _headers(operation: Operation) -> Iterator[dict[str, Any]]:
    for header in operation.headers:
        schema = {"type": "string"} if header.pattern is None else {"type": "string", "pattern": f"^{header.pattern}$"}
        yield {"name": header.name, "in": "header", "description": header.text, "schema": schema}


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses = {str(answer.status): _answer(answer, schemas) for answer in operation.answers}
    for status in operation.problems:
        if str(status) in responses:
            raise ValueError(f"{operation.name} says of {status} both that it is an answer and that it is a problem")
    for status in {*operation.problems, *EVERYWHERE}:
        problem = {"$ref": f"#/components/responses/{_PROBLEM.format(status)}"}
        responses.setdefault(str(status), problem)
    return dict(sorted(responses.items()))


def _answer(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.text}
    if answer.headers:
        response["headers"] = _answer_headers(answer.headers)
    if answer.content:
        response["content"] = {media_type: {"schema": schemas.of(kind)} for media_type, kind in answer.content.items()}
    return response


def _answer_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _problems(routes: Iterable[Route], schemas: Schemas) -> dict[str, Any]:
    statuses = {status for route in routes for operation in route.operations for status in operation.problems}
    problems = {}
    for status in sorted({*statuses, *EVERYWHERE}):
        problems[_PROBLEM.format(status)] = problem = {
            "description": TEXT_BY_STATUS[status],
            "content": {PROBLEM_TYPE: {"schema": schemas.of(Problem)}},
        }
        if status in (429, 503):
            problem["headers"] = _answer_headers({"Retry-After": "seconds"})
    return dict(sorted(problems.items()))
