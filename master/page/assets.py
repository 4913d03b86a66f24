"""The files of the page, read once. All of them change their address together when any of them changes."""

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_DIGEST_CHARACTERS = 12


class StaticFile(NamedTuple):
    """One file and its media type."""

    content: bytes
    media_type: str


class Assets:
    """``digest`` is a part of the address of every file, so that a browser may keep them for ever."""

    def __init__(self, files: dict[str, StaticFile]) -> None:
        self.files = files
        self.digest = _digest(files)

    def path(self, name: str) -> str:
        """Where the file is served. Raises ``KeyError`` when there is none of that name."""
        self.files[name]
        return f"/static/{self.digest}/{name}"


def load_assets() -> Assets:
    """The files that come with this package."""
    files = {
        file.name: StaticFile(file.read_bytes(), _MEDIA_TYPES[file.name.rpartition(".")[2]])
        for file in _folder("static").iterdir()
        if file.name.rpartition(".")[2] in _MEDIA_TYPES
    }
    return Assets(files)


def render_page(assets: Assets, **values: object) -> bytes:
    """``/`` as HTML; every value is escaped. ``static`` in the template gives the address of a file."""
    from jinja2 import (  # noqa: PLC0415 - heavy, and not needed before somebody wants a page
        DictLoader,
        Environment,
        StrictUndefined,
        select_autoescape,
    )

    templates = {file.name: file.read_text(encoding="utf-8") for file in _folder("templates").iterdir()}
    environment = Environment(
        loader=DictLoader(templates),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    modules = sorted(name for name in assets.files if name.endswith(".js"))
    return environment.get_template("index.html").render(static=assets.path, modules=modules, **values).encode()


def _folder(name: str) -> Traversable:
    return resources.files("fleetpulse.master.page") / name


def _digest(files: dict[str, StaticFile]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(b"%b %d\n%b" % (name.encode(), len(file.content), file.content))
    return digest.hexdigest()[:_DIGEST_CHARACTERS]
