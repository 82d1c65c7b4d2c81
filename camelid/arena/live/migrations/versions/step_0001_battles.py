"""Battles with their turns, answers and votes; keys, and counts behind limits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "arena_secrets",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(128), nullable=False),
        sa.Column("made", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_arena_secrets"),
    )
    op.create_table(
        "arena_uses",
        sa.Column("name", sa.String(160), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", "period", name="pk_arena_uses"),
    )
    _battles()
    _answers()
    _votes()


def _battles() -> None:
    op.create_table(
        "arena_battles",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("person", sa.String(64)),
        sa.Column("address", sa.String(64)),
        sa.Column("model_a", sa.String),
        sa.Column("model_b", sa.String),
        sa.Column("chance", sa.Double),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("shared", sa.Boolean, nullable=False),
        sa.Column("made", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_battles"),
    )
    op.create_index("ix_arena_battles_person", "arena_battles", ["person"])
    op.create_index("ix_arena_battles_made", "arena_battles", ["made"])
    op.create_table(
        "arena_turns",
        sa.Column("battle", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("question", sa.String),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("held", sa.Double, nullable=False),
        sa.Column("made", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("battle", "number", "attempt", name="pk_arena_turns"),
        sa.ForeignKeyConstraint(["battle"], ["arena_battles.id"], name="fk_arena_turns_battle", ondelete="CASCADE"),
    )


def _answers() -> None:
    op.create_table(
        "arena_answers",
        sa.Column("battle", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("side", sa.String(1), nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("text", sa.String),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("sampling", sa.JSON, nullable=False),
        sa.Column("made_with", sa.JSON, nullable=False),
        sa.Column("prompt_hash", sa.String(64)),
        sa.Column("n_prompt", sa.Integer),
        sa.Column("n_tokens", sa.Integer),
        sa.Column("finish_reason", sa.String(16)),
        sa.Column("names_maker", sa.Boolean, nullable=False),
        sa.Column("first_seconds", sa.Double),
        sa.Column("seconds", sa.Double),
        sa.Column("reason", sa.String),
        sa.PrimaryKeyConstraint("battle", "number", "attempt", "side", name="pk_arena_answers"),
        sa.ForeignKeyConstraint(
            ["battle", "number", "attempt"],
            ["arena_turns.battle", "arena_turns.number", "arena_turns.attempt"],
            name="fk_arena_answers_battle",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_arena_answers_model", "arena_answers", ["model"])


def _votes() -> None:
    op.create_table(
        "arena_votes",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("battle", sa.String(32), nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("winner", sa.Integer, nullable=False),
        sa.Column("model_a", sa.String, nullable=False),
        sa.Column("model_b", sa.String, nullable=False),
        sa.Column("chance", sa.Double),
        sa.Column("anony", sa.Boolean, nullable=False),
        sa.Column("person", sa.String(64)),
        sa.Column("address", sa.String(64)),
        sa.Column("prompt", sa.String(64)),
        sa.Column("names_maker", sa.Boolean, nullable=False),
        sa.Column("style", sa.JSON, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("made", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_arena_votes"),
        sa.UniqueConstraint("battle", name="uq_arena_votes_battle"),
        sa.ForeignKeyConstraint(
            ["battle", "turn", "attempt"],
            ["arena_turns.battle", "arena_turns.number", "arena_turns.attempt"],
            name="fk_arena_votes_battle",
        ),
    )
    op.create_index("ix_arena_votes_person", "arena_votes", ["person"])
    op.create_index("ix_arena_votes_made", "arena_votes", ["made"])
