"""The reference as a page for people: the OpenAPI document through one template, without a script."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from fleetpulse.master.api.openapi import Schema

_TEMPLATES = Path(__file__).parent / "templates"
_TICKS = re.compile(r"`([^`]+)`")
_SAMPLES = {"worker_id": "worker-1", "task_id": "task-123", "port": "9100"}
_LONGEST_PATTERN = 40
"""A longer one explains nothing to people; what they need is told in words."""


class Entry(NamedTuple):
    """One operation, with its problems apart from its answers."""

    path: str
    method: str
    said: dict[str, Any]
    parameters: list[dict[str, Any]]
    answers: dict[str, dict[str, Any]]
    problems: list[str]
    curl: str


def style() -> str:
    """The page's own style. Reads a file."""
    return (_TEMPLATES / "reference.css").read_text(encoding="utf-8")


def rendered(document: dict[str, Any], css: str) -> str:
    """The page, with that style."""
    import jinja2  # noqa: PLC0415 - heavy, and not needed before somebody wants a page

    # Undefined is false here, as members that a document need not have are absent.
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"prose": prose, "limits": limits}
    # Not escaped: a browser takes what is within <style> as it is, and compares its hash.
    style = Markup(css)  # nosec B704 # a file of ours
    return environment.get_template("reference.html").render(
        document=document,
        groups={tag["name"]: list(_entries(document, tag["name"])) for tag in document["tags"]},
        problems=document["components"]["responses"],
        types=document["components"]["schemas"],
        style=style,
    )


def prose(text: str) -> Markup:
    """Text with code between backticks."""
    marked = _TICKS.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(marked)  # nosec B704 # escaped above


def limits(schema: Schema) -> str:
    """What a schema asks of a value beyond its type, in a few words."""
    if "anyOf" in schema:
        alternatives = [*schema["anyOf"], {"default": schema.get("default")}]
        return "; ".join(filter(None, dict.fromkeys(map(limits, alternatives))))
    least, most = schema.get("minimum"), schema.get("maximum")
    said: list[str] = []
    if least is not None and most is not None:
        said.append(f"{_number(least)} to {_number(most)}")
    elif least is not None:
        said.append(f"at least {_number(least)}")
    elif most is not None:
        more = f"more than {schema['exclusiveMinimum']}, " if "exclusiveMinimum" in schema else ""
        said.append(f"{more}at most {_number(most)}")
    for key, words in _LIMITS.items():
        if key in schema:
            said.append(words.format(schema[key]))
    if len(pattern := schema.get("pattern", "")) in range(1, _LONGEST_PATTERN):
        said.append(f"matches {pattern}")
    if schema.get("default") is not None:
        said.append(f"default {json.dumps(schema['default'])}")
    return "; ".join(said)


def _number(number: float) -> str:
    return str(int(number) if number == int(number) else number)


_LIMITS = {
    "maxLength": "{} characters at most",
    "minItems": "{} at least",
    "maxItems": "{} at most",
    "maxProperties": "{} entries at most",
    "format": "{}",
}


def _entries(document: dict[str, Any], tag: str) -> Iterator[Entry]:
    for path, item in document["paths"].items():
        for method, said in item.items():
            if method != "parameters" and tag in said["tags"]:
                parameters = [*item.get("parameters", ()), *said.get("parameters", ())]
                answers = {status: each for status, each in said["responses"].items() if "$ref" not in each}
                problems = [status for status in said["responses"] if status not in answers]
                curl = _curl(path, method.upper(), said, parameters)
                yield Entry(path, method.upper(), said, parameters, answers, problems, curl)


def _curl(path: str, method: str, said: dict[str, Any], parameters: list[dict[str, Any]]) -> str:
    words = ["curl", "-s"] if method == "GET" else ["curl", "-s", "-X", method]
    for content in said.get("requestBody", {}).get("content", {}).items():
        media_type, example = content[0], content[1].get("example")
        if example is not None:
            words += ["-H", f"Content-Type: {media_type}", "-d", json.dumps(example)]
    required = [each["name"] for each in parameters if each["in"] == "query" and each["required"]]
    query = "&".join(f"{name}={_SAMPLES.get(name, '…')}" for name in required)
    url = "localhost:8080" + re.sub(r"\{(\w+)\}", lambda field: _SAMPLES.get(field[1], "…"), path)
    return shlex.join([*words, f"{url}?{query}" if query else url])
