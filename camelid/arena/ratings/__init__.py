"""Ratings from votes: who wins against whom, how sure that is, and what length and style have to do with it."""

from camelid.arena.ratings.board import Board, Coefficient, Row
from camelid.arena.ratings.counts import Counts
from camelid.arena.ratings.options import RateOptions
from camelid.arena.ratings.rate import METHODS, rate, rate_counts

__all__ = ["METHODS", "Board", "Coefficient", "Counts", "RateOptions", "Row", "rate", "rate_counts"]
