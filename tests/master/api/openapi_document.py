"""Holds answers to the document that describes them."""

import re
from functools import cache
from typing import Any

import jsonschema_rs
from falcon.testing import Result

from fleetpulse.master.api.openapi import document
from fleetpulse.master.api.routes import ROUTES


@cache
def described() -> dict[str, Any]:
    """The document of the master under test."""
    return document(ROUTES, "1.2.3")


@cache
def _validator(reference: str) -> jsonschema_rs.Validator:
    """Of the schema at a place in the document."""
    return jsonschema_rs.validator_for({**described(), "$ref": reference})


def errors_of(result: Result, method: str, template: str) -> list[str]:
    """What is wrong with an answer of an operation, or nothing."""
    path = f"#/paths/{_escaped(template)}/{method.lower()}/responses"
    said = described()["paths"][template][method.lower()]["responses"]
    if (status := str(result.status_code)) not in said:
        return [f"{method} {template} says nothing of a {status}"]
    response = said[status]
    if "$ref" in response:
        path, status = "#/components/responses", response["$ref"].rpartition("/")[2]
        response = described()["components"]["responses"][status]
    media_type = result.headers.get("Content-Type", "").partition(";")[0]
    content = response.get("content", {})
    if media_type not in content and (content or result.content):
        return [f"{method} {template} answers {status} as {media_type!r}, and not as one of {sorted(content)}"]
    if not media_type.endswith("json"):
        return []
    validator = _validator(f"{path}/{status}/content/{_escaped(media_type)}/schema")
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(result.json)]


def references_in(schema: Any) -> set[str]:
    """Every place in the document that is referred to."""
    return set(re.findall(r"'\$ref': '([^']+)'", str(schema)))


def _escaped(segment: str) -> str:
    """As JSON pointers in URLs have it."""
    return segment.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
