"""What a person chooses about the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from camelid.options import Options


class EngineOptions(Options):
    """Engine"""

    context: int | None = Field(None, ge=1, description="Most tokens of prompt and answer; else the model's own.")
    max_batch_tokens: int = Field(512, ge=1, description="Tokens in one forward pass; long prompts are cut into these.")
    max_running: int = Field(64, ge=1, description="Requests that run at once; more wait.")
    cache_tokens: int | None = Field(None, ge=1, description="Positions that the key/value cache has room for.")
    threads: int | None = Field(None, ge=1, le=1024, description="Threads; else as many as this process may use.")
    prefix_cache: bool = Field(True, description="Do not read again what was read before.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Numbers to compute in; auto: as the weights ask on cpu, bfloat16 on GPUs, else float32."
    )
    activation_bits: Literal[8, 15] = Field(
        8,
        description="Of what meets quantised weights on cpu: 8, and 15 for the largest among 32; "
        "or 15 for all, as good as exact and slower at reading prompts.",
    )
