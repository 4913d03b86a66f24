"""What the paths of the page answer."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import falcon
import gevent

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.page.assets import Assets, load_assets, render_page
from fleetpulse.master.page.overview import Overview
from fleetpulse.master.telemetry.manager import TelemetryManager

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class Page:
    """``/``: the same for everybody; what is live in it comes from the API.

    It is made in a native thread, when it is first wanted.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made: tuple[bytes, falcon.ETag] | None = None

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if self._made is None:
            html = gevent.get_hub().threadpool.apply(self._make)
            self._made = html, _etag(html)
        html, etag = self._made
        _harden(resp)
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        resp.set_header("ETag", etag.dumps())
        resp.cache_control = ("no-cache",)
        if not {etag, "*"}.isdisjoint(req.if_none_match or ()):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = "text/html; charset=utf-8"
        resp.data = html

    on_head = on_get


class StaticFiles:
    """``/static/{page_version}/{page_file}``: for ever the same, because another content has another address."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    def on_get(self, _req: falcon.Request, resp: falcon.Response, page_version: str, page_file: str) -> None:
        file = self._assets.files.get(page_file)
        if file is None or page_version != self._assets.digest:
            raise falcon.HTTPNotFound(description="there is no such file, or it is of another version: load / again")
        _harden(resp)
        resp.cache_control = ("public", "max-age=31536000", "immutable")
        resp.content_type = file.media_type
        resp.data = file.content

    on_head = on_get


def page_resources(
    telemetry: TelemetryManager, instruments: Instruments, version: str, grafana_url: str | None
) -> Mapping[str, object]:
    """By path: the page, its files, and the numbers above it. ``grafana_url`` has no ``/`` at its end."""
    assets = load_assets()
    return {
        "/": Page(partial(render_page, assets, version=version, grafana_url=grafana_url or "")),
        "/static/{page_version}/{page_file}": StaticFiles(assets),
        "/api/overview": Overview(telemetry, instruments),
    }


def _etag(html: bytes) -> falcon.ETag:
    etag = falcon.ETag(hashlib.sha256(html).hexdigest()[:16])
    etag.is_weak = True
    return etag


def _harden(resp: falcon.Response) -> None:
    resp.set_header("X-Content-Type-Options", "nosniff")
    resp.set_header("Referrer-Policy", "no-referrer")
