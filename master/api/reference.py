"""``/openapi.json`` and ``/docs``: the reference, for programs and for people."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache

import falcon
import gevent
import orjson

from fleetpulse.master.api.openapi import document
from fleetpulse.master.api.operations import HTML, JSON, Route
from fleetpulse.master.api.reference_page import rendered, style


class Reference:
    """One answer that never changes while the master runs. It is made in a native thread, when it is first wanted."""

    def __init__(self, make: Callable[[], bytes], media_type: str, security_policy: str | None = None) -> None:
        self._make = make
        self._made: tuple[bytes, falcon.ETag] | None = None
        self._media_type = media_type
        self._security_policy = security_policy

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if self._made is None:
            data = gevent.get_hub().threadpool.apply(self._make)
            self._made = data, _etag(data)
        resp.data, etag = self._made
        resp.set_header("ETag", etag.dumps())
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.cache_control = ("no-cache",)
        if not {etag, "*"}.isdisjoint(req.if_none_match or ()):
            resp.status, resp.data = falcon.HTTP_304, None
            return
        if self._security_policy is not None:
            resp.set_header("Content-Security-Policy", self._security_policy)
            resp.set_header("Referrer-Policy", "no-referrer")
        resp.content_type = self._media_type

    on_head = on_get


def reference_resources(routes: Sequence[Route], version: str) -> dict[str, object]:
    """What answers at the paths of the reference."""

    @cache
    def made() -> dict[str, object]:
        return document(routes, version)

    css = style()
    return {
        "/openapi.json": Reference(lambda: orjson.dumps(made()), JSON),
        "/docs": Reference(lambda: rendered(made(), css).encode(), f"{HTML}; charset=utf-8", _security_policy(css)),
    }


def _etag(data: bytes) -> falcon.ETag:
    etag = falcon.ETag(hashlib.sha256(data).hexdigest()[:16])
    # The same is answered with and without compression.
    etag.is_weak = True
    return etag


def _security_policy(css: str) -> str:
    """Nothing runs, nothing is loaded, and only the page's own style applies."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
