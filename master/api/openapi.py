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
from fleetpulse.master.api.operations import EVERYWHERE, JSON, PATH_FIELDS, Answer, Operation, Route
from fleetpulse.master.api.problems import PROBLEM_TYPE, TEXT_BY_STATUS, Problem

Schema = dict[str, Any]

_SCHEMA, _PROBLEM = "#/components/schemas/{}", "#/components/responses/Problem{}"

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


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Returns the whole document. Takes some tens of milliseconds."""
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


class Schemas:
    """The JSON Schemas of every type in a table of routes. ``components`` are those that others refer to by name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        operations = [operation for route in routes for operation in route.operations]
        answers = [kind for each in operations for answer in each.answers for kind in answer.content.values()]
        kinds = list(dict.fromkeys([*answers, Problem]))
        schemas, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMA.format("{name}"))
        self._answers = dict(zip(kinds, schemas, strict=True))
        for struct in {struct for kind in kinds for struct in _structs_in(kind)}:
            _describe(struct, components[struct.__name__])
        self._queries: dict[type[BaseModel], Schema] = {}
        for operation in operations:
            if operation.query is not None:
                self._queries[operation.query] = _request(operation.query, components)
            if operation.body is not None:
                components[operation.body.model.__name__] = _request(operation.body.model, components)
        self.components: Schema = {name: _tidy(schema) for name, schema in sorted(components.items())}

    def content(self, types: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the content of an answer, by media type."""
        return {media_type: {"schema": _tidy(self._answers[kind])} for media_type, kind in types.items()}

    def parameters(self, query: type[BaseModel] | None) -> Iterator[dict[str, Any]]:
        """Yields the parameters of a query."""
        query_schema = {} if query is None else self._queries[query]
        for name, schema in query_schema.get("properties", {}).items():
            yield _parameter(name, "query", _parameter_schema(schema), name in query_schema.get("required", ()))


def _request(model: type[BaseModel], components: Schema) -> Schema:
    """Returns the schema of a request, and adds what it refers to to the components."""
    schema = model.model_json_schema(ref_template=_SCHEMA.format("{model}"))
    components |= schema.pop("$defs", {})
    return schema


def _structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    if is_struct:
        yield kind
    for part in get_type_hints(kind).values() if is_struct else get_args(kind):
        yield from _structs_in(part)


def _describe(struct: type[msgspec.Struct], schema: Schema) -> None:
    """Adds what the schema of a struct lacks: which fields an answer always has, and what each field means."""
    schema["additionalProperties"] = False
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    if not struct.__struct_config__.omit_defaults:
        sometimes = {field.name for field in msgspec.structs.fields(struct) if field.default is msgspec.UNSET}
        schema["required"] = [name for field, name in names.items() if field not in sometimes]
        for field in schema["properties"].values():
            field.pop("default", None)
    for cls in reversed(struct.__mro__[:-2]):  # without Struct and object
        for field, text in _field_texts(inspect.getfile(cls)).get(cls.__name__, {}).items():
            schema["properties"][names[field]]["description"] = text


@cache
def _field_texts(source: str) -> dict[str, dict[str, str]]:
    """Returns, by class and field of a source file, the docstring below the field."""
    classes = [node for node in ast.parse(Path(source).read_bytes()).body if isinstance(node, ast.ClassDef)]
    texts: dict[str, dict[str, str]] = {cls.name: {} for cls in classes}
    for cls in classes:
        for statements in pairwise(cls.body):
            match statements:
                case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[cls.name][field] = text
    return texts


def _parameter_schema(schema: Schema) -> Schema:
    """An optional parameter is ``None`` to the model, which a query cannot say; and a query may repeat a value."""
    schema = {key: value for key, value in schema.items() if key != "uniqueItems" and (key, value) != ("default", None)}
    alternatives = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    if len(alternatives) == 1:
        return {**alternatives[0], **schema}
    return {**schema, "anyOf": alternatives} if alternatives else schema


def _tidy(schema: Any) -> Any:
    """Returns the schema without titles, which are made of names, and with descriptions as one line of Markdown."""
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


def _path(route: Route, schemas: Schemas) -> dict[str, Any]:
    fields = re.findall(r"\{(\w+)\}", route.path)
    item = {operation.method.lower(): _operation(operation, route.tag, schemas) for operation in route.operations}
    return {"parameters": [_parameter(name, "path", _text(*PATH_FIELDS[name]), True) for name in fields], **item}


def _parameter(name: str, place: str, schema: Schema, is_required: bool = False) -> dict[str, Any]:
    schema = _tidy(schema)
    text = {"description": schema.pop("description")} if "description" in schema else {}
    return {"name": name, "in": place, "required": is_required, **text, "schema": schema}


def _text(description: str, pattern: str | None = None) -> Schema:
    schema = {"type": "string", "description": description}
    return schema if pattern is None else {**schema, "pattern": f"^{pattern}$"}


def _operation(operation: Operation, tag: str, schemas: Schemas) -> dict[str, Any]:
    text = " ".join(f"{operation.text} {_TEXT_BY_ROLE[operation.role]}".split())
    item: dict[str, Any] = {
        "operationId": operation.name, "tags": [tag], "summary": operation.summary, "description": text,
        "parameters": [
            *schemas.parameters(operation.query),
            *(_parameter(each.name, "header", _text(each.text, each.pattern)) for each in operation.headers),
        ],
    }  # fmt: skip
    if (body := operation.body) is not None:
        content: dict[str, Any] = {"schema": {"$ref": _SCHEMA.format(body.model.__name__)}}
        if body.example is not None:
            content["example"] = body.example
        item["requestBody"] = {"required": body.is_required, "content": {JSON: content}}
    item["responses"] = _responses(operation, schemas)
    return item


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses = {str(answer.status): _response(answer, schemas) for answer in operation.answers}
    if twice := {status for status in operation.problems if str(status) in responses}:
        raise ValueError(f"{operation.name}: {twice} are among its answers and among its problems")
    for status in {*operation.problems, *EVERYWHERE}:
        responses.setdefault(str(status), {"$ref": _PROBLEM.format(status)})
    return dict(sorted(responses.items()))


def _response(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.text}
    if answer.headers:
        response["headers"] = _headers(answer.headers)
    if answer.content:
        response["content"] = schemas.content(answer.content)
    return response


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _problems(routes: Iterable[Route], schemas: Schemas) -> dict[str, Any]:
    statuses = {status for route in routes for operation in route.operations for status in operation.problems}
    problems = {}
    for status in sorted({*statuses, *EVERYWHERE}):
        headers = {"Retry-After": "seconds"} if status in (429, 503) else {}
        answer = Answer(status, TEXT_BY_STATUS[status], {PROBLEM_TYPE: Problem}, headers)
        problems[f"Problem{status}"] = _response(answer, schemas)
    return problems
