"""What all pages share: the tabs, the templates, and the files that come with them.

Files under static/, a folder for each page, are served below a hash of all of them. A browser may keep them for ever,
modules may import each other by plain relative names, and a change of any file changes every address.

A room that serve does not know brings templates and files of its own: see `take_in`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from starlette.routing import Match

from camelid import __version__
from camelid.serve.addresses import link

HERE = Path(__file__).parent
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


@dataclass(frozen=True)
class Tab:
    """A page that the navigation leads to."""

    name: str
    path: str
    title: str


TABS = (
    Tab("battle", "/battle", "Arena (battle)"),
    Tab("side-by-side", "/side-by-side", "Arena (side-by-side)"),
    Tab("chat", "/chat", "Direct Chat"),
    Tab("vision", "/vision", "Vision Direct Chat"),
    Tab("leaderboard", "/leaderboard", "Leaderboard"),
    Tab("flow", "/flow", "Flow"),
    Tab("models", "/models", "Models"),
    Tab("runs", "/runs", "Runs"),
    Tab("benchmarks", "/benchmarks", "Benchmarks"),
    Tab("about", "/about", "About"),
)


_GUESTS: dict[str, Path] = {}  # name → folder with templates/ and static/


def take_in(name: str, folder: Path) -> None:
    """Make a guest's pages part of the shell; once more changes nothing.

    Its `templates/page.html` is the template `NAME/page.html`, and may extend `base.html`; its `static/page.css` is the
    file `NAME/page.css`, beside `static/root.js` of the shell.

    Args:
        name: under which its pages are found.
        folder: that has `templates/`, `static/`, or both.
    """
    if _GUESTS.get(name) != folder:
        _GUESTS[name] = folder
        for cached in (static_files, static_version, environment):
            cached.cache_clear()


@cache
def static_files() -> dict[str, bytes]:
    """Name, as `chat/chat.js`, → content of every file that pages load, read once."""
    folders = {"": HERE, **{f"{name}/": folder for name, folder in sorted(_GUESTS.items())}}
    return {
        prefix + path.relative_to(folder / "static").as_posix(): path.read_bytes()
        for prefix, folder in folders.items()
        for path in sorted((folder / "static").rglob("*"))
        if path.suffix in MEDIA_TYPES
    }


@cache
def static_version() -> str:
    """Ten hexadecimal digits that change when any static file does."""
    digest = hashlib.sha256()
    for name, content in static_files().items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:10]


def asset(name: str) -> str:
    """Address of a static file; KeyError if there is none of that name."""
    static_files()[name]
    return link(f"/static/{static_version()}/{name}")


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template that extends base.html; `values` are what it names."""
    tabs = [tab for tab in TABS if _is_served(request, tab.path)]
    html = environment().get_template(template).render(path=request.url.path, tabs=tabs, **values)
    return HTMLResponse(html, status, headers={"Cache-Control": "no-store"})


@cache
def environment() -> Environment:
    """The templates, set up on first use; whatever they are given is escaped."""
    guests = {name: FileSystemLoader(folder / "templates") for name, folder in _GUESTS.items()}
    loader = ChoiceLoader([FileSystemLoader(HERE / "templates"), PrefixLoader(guests)])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals.update(asset=asset, link=link, version=__version__)
    return made


def _is_served(request: Request, path: str) -> bool:
    """Whether the app has this page: rooms add theirs as they are built."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "path_params": {}}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
