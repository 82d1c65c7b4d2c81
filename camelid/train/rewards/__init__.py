"""Rewards by code that need nothing but an answer, or the right one beside it."""
