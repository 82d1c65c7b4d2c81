"""Logs of votes, in all forms that are known, and the arena's own."""

from camelid.arena.logs.columns import open_battles, save_battles
from camelid.arena.logs.read import read_battles, read_texts
from camelid.arena.logs.vote import BattleText, Vote

__all__ = ["BattleText", "Vote", "open_battles", "read_battles", "read_texts", "save_battles"]
