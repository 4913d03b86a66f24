"""What the page is made of."""

import re

from fleetpulse.master.page.assets import Assets, StaticFile, load_assets, render_page


def render(**values: object) -> str:
    return render_page(load_assets(), **{"version": "1.2.3", "grafana_url": "", **values}).decode()


def test_every_file_that_the_page_names_is_there_and_every_file_is_named() -> None:
    assets = load_assets()
    named = set(re.findall(r'(?:src|href)="/static/[0-9a-f]{12}/([^"]+)"', render()))
    assert named == assets.files.keys()


def test_every_import_of_a_module_leads_to_one() -> None:
    assets = load_assets()
    modules = {name: file.content.decode() for name, file in assets.files.items() if name.endswith(".js")}
    assert len(modules) > 10
    for name, source in modules.items():
        imported = set(re.findall(r"from '\./([^']+)'", source))
        assert imported <= modules.keys(), name
        assert len(re.findall(r"^import ", source, re.MULTILINE)) == len(re.findall(r"from '\./", source)), name


def test_nothing_is_asked_for_outside_of_one_module() -> None:
    for name, file in load_assets().files.items():
        if name.endswith(".js") and name != "api.js":
            assert not re.search(r"\bfetch\(|new EventSource|XMLHttpRequest|WebSocket", file.content.decode()), name


def test_nothing_becomes_markup_and_no_address_leads_elsewhere() -> None:
    for name, file in load_assets().files.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
        assert not re.search(r"https?://|url\(|@import", text), name


def test_the_page_has_neither_inline_script_nor_inline_style() -> None:
    html = render()
    assert re.findall(r"<script(?![^>]* src=)[^>]*>|<style|\son\w+=|\sstyle=", html) == []


def test_values_are_escaped() -> None:
    assert '<script>"' not in render(grafana_url='"><script>"')


def test_another_content_has_another_address() -> None:
    one, other = (Assets({"a.js": StaticFile(content, "text/javascript")}) for content in (b"1", b"2"))
    assert one.path("a.js") != other.path("a.js")
    assert Assets(dict(one.files)).path("a.js") == one.path("a.js")


def test_a_file_of_another_name_changes_the_address_too() -> None:
    file = StaticFile(b"1", "text/javascript")
    assert Assets({"a.js": file}).digest != Assets({"b.js": file}).digest
