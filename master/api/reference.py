"""``/openapi.json`` and ``/docs``: the reference, for programs, and for people as a page without a script."""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import falcon
import gevent
from markupsafe import Markup, escape

from fleetpulse.master.api.answers import encoded, not_modified
from fleetpulse.master.api.openapi import Schema, document
from fleetpulse.master.api.operations import HTML, JSON, Route

_TEMPLATES = Path(__file__).parent / "templates"
_CODE = re.compile(r"`([^`]+)`")
_SAMPLES = {"worker_id": "worker-1", "task_id": "task-123", "port": "9100"}
_MAX_PATTERN_LENGTH = 40
"""A longer pattern explains nothing to people; the description says what they need."""

_LIMITS = {
    "maxLength": "{} characters at most",
    "minItems": "{} at least",
    "maxItems": "{} at most",
    "maxProperties": "{} entries at most",
    "format": "{}",
}


class GeneratedDocument:
    """A document that never changes while the master runs. Made in a native thread, by the first request for it."""

    def __init__(self, make: Callable[[], bytes], media_type: str, security_policy: str | None = None) -> None:
        self._make = make
        self._made: tuple[bytes, str] | None = None
        self._media_type = media_type
        self._security_policy = security_policy

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if self._made is None:
            data = gevent.get_hub().threadpool.apply(self._make)
            self._made = data, hashlib.sha256(data).hexdigest()[:16]
        data, tag = self._made
        resp.set_header("X-Content-Type-Options", "nosniff")
        if self._security_policy is not None:
            resp.set_header("Content-Security-Policy", self._security_policy)
            resp.set_header("Referrer-Policy", "no-referrer")
        if not not_modified(req, resp, tag):
            resp.content_type = self._media_type
            resp.data = data

    on_head = on_get


class Entry(NamedTuple):
    """One operation on the page, with its problems apart from its answers."""

    path: str
    method: str
    operation: dict[str, Any]
    parameters: list[dict[str, Any]]
    answers: dict[str, dict[str, Any]]
    problems: list[str]
    curl: str


def reference_resources(routes: Sequence[Route], version: str) -> dict[str, object]:
    """Returns the resources by path. Reads a file."""

    @cache
    def openapi() -> dict[str, Any]:
        return document(routes, version)

    css = (_TEMPLATES / "reference.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "/openapi.json": GeneratedDocument(lambda: encoded(openapi()), JSON),
        "/docs": GeneratedDocument(lambda: rendered(openapi(), css).encode(), f"{HTML}; charset=utf-8", policy),
    }


def rendered(openapi: dict[str, Any], css: str) -> str:
    """Returns an OpenAPI document as a page with that style."""
    import jinja2  # noqa: PLC0415 - heavy, and not needed before somebody wants a page

    # Members that the document need not have are undefined, which is false here.
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"prose": prose, "limits": limits}
    # Not escaped: a browser takes what is within <style> as it is, and compares its hash.
    style = Markup(css)  # nosec B704 # a file of ours
    return environment.get_template("reference.html").render(
        document=openapi,
        groups={tag["name"]: list(_entries(openapi, tag["name"])) for tag in openapi["tags"]},
        problems=openapi["components"]["responses"],
        types=openapi["components"]["schemas"],
        style=style,
    )


def prose(text: str) -> Markup:
    """Returns text with code between backticks as HTML."""
    marked = _CODE.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(marked)  # nosec B704 # escaped above


def limits(schema: Schema) -> str:
    """Returns what a schema asks of a value beyond its type, in a few words."""
    if "anyOf" in schema:
        alternatives = [*schema["anyOf"], {"default": schema.get("default")}]
        return "; ".join(filter(None, dict.fromkeys(map(limits, alternatives))))
    least, most = schema.get("minimum"), schema.get("maximum")
    words: list[str] = []
    if least is not None and most is not None:
        words.append(f"{_number(least)} to {_number(most)}")
    elif least is not None:
        words.append(f"at least {_number(least)}")
    elif most is not None:
        more = f"more than {schema['exclusiveMinimum']}, " if "exclusiveMinimum" in schema else ""
        words.append(f"{more}at most {_number(most)}")
    words += [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    if len(pattern := schema.get("pattern", "")) in range(1, _MAX_PATTERN_LENGTH):
        words.append(f"matches {pattern}")
    if schema.get("default") is not None:
        words.append(f"default {json.dumps(schema['default'])}")
    return "; ".join(words)


def _number(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def _entries(openapi: dict[str, Any], tag: str) -> Iterator[Entry]:
    for path, item in openapi["paths"].items():
        for method, operation in item.items():
            if method != "parameters" and tag in operation["tags"]:
                parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
                answers = {status: each for status, each in operation["responses"].items() if "$ref" not in each}
                problems = [status for status in operation["responses"] if status not in answers]
                curl = _curl(path, method.upper(), operation, parameters)
                yield Entry(path, method.upper(), operation, parameters, answers, problems, curl)


def _curl(path: str, method: str, operation: dict[str, Any], parameters: list[dict[str, Any]]) -> str:
    words = ["curl", "-s"] if method == "GET" else ["curl", "-s", "-X", method]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if (example := content.get("example")) is not None:
            words += ["-H", f"Content-Type: {media_type}", "-d", json.dumps(example)]
    required = [each["name"] for each in parameters if each["in"] == "query" and each["required"]]
    query = "&".join(f"{name}={_SAMPLES.get(name, '…')}" for name in required)
    url = "localhost:8080" + re.sub(r"\{(\w+)\}", lambda field: _SAMPLES.get(field[1], "…"), path)
    return shlex.join([*words, f"{url}?{query}" if query else url])
