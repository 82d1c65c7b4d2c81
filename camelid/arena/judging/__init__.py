"""Models as judges of battles, as MT-bench's judge is, and how far they agree with people."""

from camelid.arena.judging.agreement import Agreement, agreement
from camelid.arena.judging.judge import Judged, judge

__all__ = ["Agreement", "Judged", "agreement", "judge"]
