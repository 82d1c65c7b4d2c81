"""The file of published figures: every row is of a task and metric of ours, and its conditions have known names."""

from __future__ import annotations

import pytest

from camelid.evals.cards.conditions import STATED, form_of
from camelid.evals.cards.published import all_published, plain_name, published_models, published_of
from camelid.evals.tasks import TASKS
from camelid.hub.catalog import CATALOG


def test_every_figure_is_of_a_task_and_has_a_source():
    for figure in all_published():
        assert 0 < figure.value < 1
        assert figure.url.startswith("https://")
        assert set(figure.conditions) <= set(STATED)
        for task in figure.tasks:
            assert figure.metric in {metric.name for metric in TASKS[task].metrics}, figure


def test_a_source_gives_one_figure_of_a_model_and_metric():
    keys = [(each.model, each.source, each.tasks, each.metric) for each in all_published()]
    assert len(keys) == len(set(keys))


def test_forms_are_named_as_ours():
    ours = {form_of(task) for task in TASKS}
    assert {each.conditions["form"] for each in all_published() if "form" in each.conditions} <= ours


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("llama2:7b", "Llama 2 7B"),
        ("llama2:7b-meta", "Llama 2 7B"),
        ("meta-llama/Llama-2-13b-chat-hf", "Llama 2 13B Chat"),
        ("hf:meta-llama/Meta-Llama-3-8B-Instruct", "Llama 3 8B Instruct"),
        ("smollm2:135m-instruct", "SmolLM2 135M Instruct"),
        ("models/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2 135M Instruct"),
        ("SmolLM2-135M-Instruct-F16", "SmolLM2 135M Instruct"),
        ("gemma-7b-it-Q8_0.gguf", "Gemma 7B It"),
    ],
)
def test_a_model_is_known_by_any_of_its_names(name, model):
    assert {figure.model for figure in published_of(name)} == {model}


def test_others_are_not_taken_for_it():
    for name in ("llama3.1:8b-instruct", "smollm2:135m", "smollm2:360m-instruct", "codellama:7b", "", "step1000"):
        assert not published_of(name)


def test_models_of_the_catalog_are_told_apart():
    known = {plain_name(model) for model in published_models()}
    for key in known:
        plain = {name.removesuffix("-meta").removesuffix("-hf") for name in CATALOG if plain_name(name) == key}
        assert len(plain) <= 1


def test_figures_are_the_talks():
    values = {(each.model, each.benchmark, each.source): each.value for each in all_published()}
    instruct = "Meta, Llama 3 (18 April 2024), instruct models"
    base = "Meta, Llama 2 (July 2023), base models"
    assert values["Llama 3 8B Instruct", "MMLU", instruct] == 0.684
    assert values["Claude 3 Sonnet", "GSM8K", instruct] == 0.923
    assert values["Llama 2 70B", "HumanEval", base] == 0.299
    assert ("Falcon 7B", "HumanEval", base) not in values
