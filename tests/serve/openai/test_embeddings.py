"""/v1/embeddings as the official client sees it."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.engine.backends import hidden
from tests.serve.conftest import random_llama
from tests.serve.openai.official import official

TEXTS = ["The cat sat on the mat.", "A kitten lies on a rug.", "漢字"]


@pytest.fixture(scope="module")
def client(server):
    with official(server) as it:
        yield it


@pytest.fixture(scope="module")
def alone(smollm2_path):
    """The model `tiny`, once more."""
    return random_llama(smollm2_path)


def vectors(reply):
    return np.array([row.embedding for row in reply.data])


@pytest.mark.slow
def test_a_text_is_the_mean_of_its_hidden_states_at_length_one(client, alone):
    reply = client.embeddings.create(model="tiny", input=TEXTS)  # the client itself asks for base64
    assert [row.index for row in reply.data] == [0, 1, 2]
    for vector, text in zip(vectors(reply), TEXTS, strict=True):
        mean = hidden(alone.engine, alone.prompt_ids(text)).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == sum(len(alone.prompt_ids(text)) for text in TEXTS)
    assert reply.model == "tiny"


def test_numbers_and_base64_are_the_same_vectors(client):
    numbers = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
    coded = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(row.embedding), "<f4") for row in coded.data]
    assert np.array_equal(vectors(numbers).astype(np.float32), decoded)


def test_one_text_and_its_ids_give_the_same(client, alone):
    ids = alone.prompt_ids(TEXTS[0])
    one, as_ids, among = (
        client.embeddings.create(model="tiny", input=given) for given in (TEXTS[0], ids, [ids, ids[:2]])
    )
    assert np.array_equal(vectors(one), vectors(as_ids))
    assert np.array_equal(vectors(one)[0], vectors(among)[0])


def test_what_means_the_same_lies_near(client):
    cat, kitten, law = vectors(
        client.embeddings.create(model="smollm2", input=[*TEXTS[:2], "Article 3 of the treaty was amended in 1992."])
    )
    assert cat @ kitten > cat @ law
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
