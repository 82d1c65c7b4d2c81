"""Who asks: a random signed cookie, and an address of which only a keyed hash is kept, with a key of its own each day.

Keys of days that are over are deleted, and nobody can tell any more which addresses the hashes were made of.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress

from fastapi import Request, Response

from camelid.arena.live.tickets import Signer
from camelid.serve.addresses import ROOT

COOKIE = "camelid_arena"
COOKIE_SECONDS = 400 * 86400  # the longest that browsers keep one


def person_of(request: Request, signer: Signer) -> str | None:
    """Under which the person is kept; None: no cookie, or none of ours."""
    return signer.person(request.cookies.get(COOKIE, ""))


def welcome(request: Request, response: Response, signer: Signer) -> str:
    """The person; a new one gets a cookie that scripts cannot read and other sites cannot use."""
    person = person_of(request, signer)
    if person is not None:
        return person
    cookie = signer.new_cookie()
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=COOKIE_SECONDS,
        httponly=True,
        path=ROOT.get() or "/",
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    made = signer.person(cookie)
    assert made is not None
    return made


def address_of(request: Request, proxies: int) -> str:
    """Where a request comes from; behind proxies, what the outermost of ours has seen."""
    seen = request.client.host if request.client is not None else ""
    if proxies:
        forwarded = [each.strip() for each in request.headers.get("x-forwarded-for", "").split(",")]
        seen = forwarded[-proxies] if len(forwarded) >= proxies and forwarded[-proxies] else seen
    return seen


def hashed(address: str, key: str) -> str:
    """What is kept of an address; of IPv6 the first 64 bits are one household's."""
    try:
        known = ipaddress.ip_address(address)
        if known.version == 6:
            address = str(ipaddress.ip_network((known, 64), strict=False))
    except ValueError:
        pass  # a socket's path, a test's client
    return hmac.new(bytes.fromhex(key), address.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]
