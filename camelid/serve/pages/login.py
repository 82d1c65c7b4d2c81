"""How a browser gets in where keys are asked for: the key is entered once, and a cookie is kept."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from camelid.serve.addresses import ROOT, link
from camelid.serve.dependencies import KeysDep
from camelid.serve.errors import ApiError
from camelid.serve.keys import COOKIE, SESSION_SECONDS
from camelid.serve.pages.shell import render

MOST_BYTES = 2**14  # of the form
WRONG_KEY_SECONDS = 1.0  # until a wrong key is answered

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def ask(request: Request, next: str = "/") -> Response:
    """The form."""
    return render(request, "login.html", next=_local(next), is_wrong=False)


@router.post("/login")
async def enter(request: Request, keys: KeysDep) -> Response:
    """Take a key, and keep a session in a cookie that scripts cannot read and other sites cannot use."""
    body = await request.body()
    if len(body) > MOST_BYTES:  # of millions of fields, from whoever has no key
        raise ApiError(413, f"body: has {len(body)} bytes, the limit is {MOST_BYTES}; send a key", "body_too_large")
    form = parse_qs(body.decode("utf-8", "replace"))
    next, key = _local(form.get("next", ["/"])[0]), form.get("key", [""])[0].strip()
    if not keys.has(key):
        await asyncio.sleep(WRONG_KEY_SECONDS)
        return render(request, "login.html", status=401, next=next, is_wrong=True)
    response = RedirectResponse(link(next), 303)
    response.set_cookie(
        COOKIE,
        keys.session(),
        max_age=SESSION_SECONDS,
        httponly=True,
        path=ROOT.get() or "/",
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _local(address: str) -> str:
    """Only a path of this server; anything else would lead away from it."""
    plain = address.isprintable() and "\\" not in address
    return address if plain and address.startswith("/") and not address.startswith("//") else "/"
