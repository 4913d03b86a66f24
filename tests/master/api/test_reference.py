"""master.api.reference and reference_page"""

import base64
import gzip
import hashlib
import re

import pytest
from falcon.testing import Result

from fleetpulse.master.api.openapi import Schema, document
from fleetpulse.master.api.reference import limits, prose, rendered
from fleetpulse.master.api.routes import ROUTES
from tests.master.web import Web

PATHS = ["/openapi.json", "/docs"]


def page_of(web: Web) -> Result:
    result = web.client.simulate_get("/docs")
    assert result.status_code == 200
    assert result.headers["Content-Type"] == "text/html; charset=utf-8"
    return result


@pytest.mark.parametrize("path", PATHS)
def test_unchanged_document_is_a_304(path: str, web: Web) -> None:
    first = web.client.simulate_get(path)
    again = web.client.simulate_get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert web.client.simulate_get(path, headers={"If-None-Match": 'W/"other"'}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_document_is_compressed_on_request(path: str, web: Web) -> None:
    plain = web.client.simulate_get(path)
    short = web.client.simulate_get(path, headers={"Accept-Encoding": "gzip"})
    assert short.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(short.content) == plain.content
    assert len(short.content) < len(plain.content) / 3


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_body(path: str, web: Web) -> None:
    head, got = web.client.simulate_head(path), web.client.simulate_get(path)
    assert head.content == b""
    assert head.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.content))


def test_document_describes_the_table_of_routes(web: Web) -> None:
    assert web.json("/openapi.json")["paths"] == document(ROUTES, "any")["paths"]


def test_page_runs_no_script_and_loads_nothing(web: Web) -> None:
    page = page_of(web)
    assert "<script" not in page.text
    assert re.findall(r"\bon[a-z]+=", page.text) == []
    assert "style=" not in page.text
    links = set(re.findall(r"""(?:href|src|action)="([^"]*)""", page.text))
    assert {link for link in links if not link.startswith("#")} == {"/openapi.json", "data:,"}
    assert re.findall(r"url\(|@import|//", page.text.partition("</style>")[0]) == []


def test_policy_allows_only_the_page_style(web: Web) -> None:
    page = page_of(web)
    style = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert policy[:3] == ["default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:"]


def test_every_internal_link_resolves(web: Web) -> None:
    page = page_of(web).text
    ids = re.findall(r' id="([^"]+)"', page)
    assert sorted(set(ids)) == sorted(ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)


def test_page_lists_every_operation_and_type(web: Web) -> None:
    page = page_of(web).text
    for route in ROUTES:
        for operation in route.operations:
            assert f'<h3 id="{operation.name}">' in page
    for name in web.json("/openapi.json")["components"]["schemas"]:
        assert f'<h3 id="type-{name}">' in page


def test_html_in_the_document_is_escaped() -> None:
    made = document(ROUTES, "<b>1</b>")
    made["paths"]["/health"]["get"]["summary"] = "<script>`<i>`</script>"
    page = rendered(made, "")
    assert "<script" not in page
    assert "&lt;script&gt;<code>&lt;i&gt;</code>&lt;/script&gt;" in page
    assert "<b>1" not in page


def test_prose_marks_code() -> None:
    assert prose("a `b` & c") == "a <code>b</code> &amp; c"


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "string"}, ""),
        ({"minimum": 1, "maximum": 1000, "default": 100}, "1 to 1000; default 100"),
        ({"minimum": 0.01, "maximum": 1024}, "0.01 to 1024"),
        ({"minimum": 0}, "at least 0"),
        ({"anyOf": [{"exclusiveMinimum": 0, "maximum": 2592000.0}, {"type": "null"}]}, "more than 0, at most 2592000"),
        ({"maxLength": 5, "format": "printable", "default": ""}, '5 characters at most; printable; default ""'),
        ({"pattern": "^a$"}, "matches ^a$"),
        ({"pattern": f"^{'a' * 100}$"}, ""),
        ({"minItems": 1, "maxItems": 32}, "1 at least; 32 at most"),
    ],
)
def test_limits_of_a_schema(schema: Schema, told: str) -> None:
    assert limits(schema) == told
