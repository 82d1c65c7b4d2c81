"""API keys: what programs bring in a header, and what a browser keeps in a cookie once the key was entered."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie

from camelid.serve.errors import ApiError

COOKIE = "camelid_session"
SESSION_SECONDS = 7 * 24 * 3600


class Keys:
    """The keys of a server. Comparisons take the same time wherever two keys differ.

    A session is its end and a signature with a secret of this process, so a cookie holds no key, and restarting the
    server ends all sessions.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._hashes = [_hash(key) for key in keys]
        self._secret = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._hashes)

    def has(self, key: str) -> bool:
        """Whether this is one of the keys."""
        given = _hash(key)
        return sum(hmac.compare_digest(given, known) for known in self._hashes) > 0  # all are looked at

    def refuse(self, headers: dict[bytes, bytes]) -> ApiError:
        """What to tell a request that `allow` has refused: whether it brought no key, or a wrong one."""
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            message = "Authorization: this is not a key of this server"
            return ApiError(401, message, "invalid_api_key", headers=challenge)
        message = "Authorization: no key came; send one as Authorization: Bearer KEY"
        return ApiError(401, message, "missing_api_key", headers={"WWW-Authenticate": "Bearer"})

    def allow(self, headers: dict[bytes, bytes], name: str = COOKIE) -> bool:
        """Whether a request brings a key, or a session in the cookie of this name; all do when there are no keys."""
        if not self._hashes:
            return True
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            return self.has(key.strip())
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(name)
        except CookieError:
            return False
        return cookie is not None and self._is_session(cookie.value)

    def session(self) -> str:
        """A cookie's value that is good for `SESSION_SECONDS`."""
        end = str(int(time.time()) + SESSION_SECONDS)
        return f"{end}.{self._sign(end)}"

    def _is_session(self, value: str) -> bool:
        end, _, signature = value.partition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign(end).encode())
        return genuine and time.time() < int(end)

    def _sign(self, end: str) -> str:
        return hmac.new(self._secret, end.encode(), hashlib.sha256).hexdigest()


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
