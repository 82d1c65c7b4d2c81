"""Signatures: of tickets for votes, and of the cookies by which people are known.

A ticket says battle, turn and attempt, and is signed for one person; it can be made again as long as it is good, and
the database sees to it that it counts once (`store.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_TICKET = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})\.([0-9]{1,6})\.([0-9a-f]{64})")
_COOKIE = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Ticket:
    """What a ticket is good for: a vote on this attempt at this turn of this battle."""

    battle: str
    turn: int
    attempt: int


class Signer:
    """Makes and checks signatures.

    Args:
        key: shared by all processes of an arena.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, purpose: str, text: str) -> str:
        """HMAC-SHA-256, as 64 hexadecimal digits; of no use for another purpose."""
        return hmac.new(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()

    def ticket(self, ticket: Ticket, person: str) -> str:
        """The ticket as a text, for this person."""
        said = f"{ticket.battle}.{ticket.turn}.{ticket.attempt}"
        return f"{said}.{self.sign('ticket', f'{said} {person}')}"

    def read_ticket(self, text: str, person: str) -> Ticket | None:
        """What the text is good for; None if it is none of ours, or another person's."""
        found = _TICKET.fullmatch(text)
        if found is None:
            return None
        ticket = Ticket(found[1], int(found[2]), int(found[3]))
        return ticket if hmac.compare_digest(self.ticket(ticket, person), text) else None

    def new_cookie(self) -> str:
        """Of a person who was not here before."""
        id = secrets.token_hex(16)
        return f"{id}.{self.sign('cookie', id)}"

    def person(self, cookie: str) -> str | None:
        """Under which a cookie's owner is kept: a keyed hash, from which nobody makes the cookie; None: not ours."""
        found = _COOKIE.fullmatch(cookie)
        if found is None or not hmac.compare_digest(self.sign("cookie", found[1]), found[2]):
            return None
        return self.sign("person", found[1])[:32]
