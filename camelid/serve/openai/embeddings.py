"""/v1/embeddings: the mean of a text's last hidden states, as a vector of length one."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
from numpy.typing import NDArray

from camelid.chat.llama import Llama
from camelid.engine import request as engine
from camelid.serve.errors import ApiError, named
from camelid.serve.models import Models
from camelid.serve.openai.replies import Embedding, EmbeddingReply, EmbeddingUsage
from camelid.serve.openai.requests import EmbeddingRequest
from camelid.serve.worker import Worker

EMBEDDINGS = {"prompt": "input", "text": "input"}  # ours → OpenAI's


async def embed(body: EmbeddingRequest, models: Models) -> EmbeddingReply:
    """Vectors of texts: `Llama.embed`, divided by its length, so that a dot product is the cosine.

    Raises:
        ApiError: there is no such model, a text is empty or too long, or there is no room.
    """
    worker = models.get(body.model)
    requests = await asyncio.to_thread(_requests, worker.llama, body)
    vectors = await _vectors(worker, requests)
    written = [_base64(vector) if body.encoding_format == "base64" else vector.tolist() for vector in vectors]
    n_tokens = sum(len(request.ids) for request in requests)
    return EmbeddingReply(
        object="list",
        data=[Embedding(object="embedding", index=index, embedding=vector) for index, vector in enumerate(written)],
        model=worker.name,
        usage=EmbeddingUsage(prompt_tokens=n_tokens, total_tokens=n_tokens),
    )


def _requests(llama: Llama, body: EmbeddingRequest) -> list[engine.Request]:
    width = llama.config.dim
    if body.dimensions not in (None, width):
        raise ApiError(400, f"dimensions: vectors of this model have {width} numbers; leave it out", None, "dimensions")
    with named(EMBEDDINGS):
        ids = [tuple(llama.prompt_ids(text)) for text in body.inputs]
        requests = [engine.Request(ids=own, wants="hidden", pooled=True) for own in ids]
        for request in requests:
            llama.engine.check(request)
    return requests


async def _vectors(worker: Worker, requests: list[engine.Request]) -> list[NDArray[np.float32]]:
    """One text after the other, beside what others want."""
    vectors = []
    for request in requests:
        pooled = await worker.result(request)
        assert isinstance(pooled, engine.Rows)
        (mean,) = pooled.rows
        vectors.append(mean / (np.linalg.norm(mean) or 1))
    return vectors


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
