"""camelid's engine as a model of lm-eval, for the thousands of tasks that live there.

    python -m camelid.evals.lm_eval_model --model camelid --model_args model=smollm2:135m-instruct --tasks arc_easy

takes what the command `lm_eval` takes, which has no way to bring a model of one's own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

import camelid
from camelid.chat.llama import Llama
from camelid.chat.scoring import Text, loglikelihoods
from camelid.engine.options import EngineOptions
from camelid.errors import ContextError, OptionError
from camelid.tokens.templates.message import Message

log = logging.getLogger(__name__)

MAX_GEN_TOKS = 256  # where a task names no limit, as lm-eval's own models have it
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")  # what a task may set besides
_IGNORED = ("do_sample", "use_cache")

Pair = tuple[tuple[str, str], list[int], list[int]]  # texts, and ids of context and continuation


@register_model("camelid")
class CamelidLM(TemplateLM):
    """A model for `lm_eval.simple_evaluate(model=…)`.

    Texts become ids as lm-eval's `hf` model makes them: of the whole text, cut at the length of the context's own ids.
    What is too long for the context loses ids on the left, and a warning says how many texts that were.

    Args:
        model: a name or path that `camelid.load` takes, or a model that is open.
        context: most ids of a text; the model's own if left out.
        batch_size, device: taken since lm-eval hands them to every model, and not used.

    Raises:
        CamelidError: as `camelid.load`.
    """

    def __init__(
        self,
        model: str | Llama = "smollm2:135m-instruct",
        backend: str = "auto",
        context: int | None = None,
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
    ) -> None:
        super().__init__()
        options = EngineOptions(context=context) if context else None
        self.llama = model if isinstance(model, Llama) else camelid.load(model, backend=backend, options=options)
        self._has_template = False  # prompts hold a chat template's control tokens, as text

    @property
    def max_length(self) -> int:
        """Most ids of a text."""
        return self.llama.context

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        id = self.llama.tokenizer.eos_id
        if id is None:
            raise OptionError("lm-eval: this model has no id that ends a text")
        return id

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before an empty context."""
        id = self.llama.tokenizer.bos_id
        return id if id is not None else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        """What tells this tokenizer and its template from others, for lm-eval's cache of requests."""
        return f"camelid-{self.llama.tokenizer.fingerprint()}"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The name of the chat format: its text is not needed, since `apply_chat_template` does it."""
        return self.llama.chat_format.name if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text, control tokens included.

        Raises:
            OptionError: the text does not give the conversation's ids again.
        """
        self._has_template = True
        messages = [Message(row["role"], row["content"]) for row in chat_history]
        rendered = self.llama.chat_format.render(
            self.llama.tokenizer,
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        text = self.llama.tokenizer.decode(rendered.ids, special=True)
        if self.tok_encode(text) != rendered.ids:
            raise OptionError(
                "lm-eval: the conversation's text holds what this model's control tokens look like; "
                "leave out --apply_chat_template"
            )
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text; with the model's BOS unless `add_special_tokens` is False or the text begins with it."""
        tokenizer = self.llama.tokenizer
        bos = tokenizer.adds_bos if add_special_tokens is None else add_special_tokens and tokenizer.adds_bos
        ids = tokenizer.encode(string, bos=bos, special=self._has_template)
        return ids[1:] if bos and ids[1:2] == [tokenizer.bos_id] else ids

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        texts, n_cut = [], 0
        for _, context, continuation in requests:
            ids = (*context, *continuation)[-self.max_length :]
            n_cut += len(ids) < len(context) + len(continuation)
            if len(continuation) >= len(ids):
                raise ContextError(
                    f"lm-eval: a continuation of {len(continuation)} tokens leaves no room in the context of "
                    f"{self.max_length}",
                    len(continuation),
                    self.max_length,
                )
            texts.append(Text(ids, len(ids) - len(continuation)))
        _warn_of_cut(n_cut, len(texts))
        results: dict[int, tuple[float, bool]] = {}
        likelihoods = loglikelihoods(self.llama.engine, texts)
        for place, likelihood in tqdm(likelihoods, "loglikelihood", len(texts), disable=disable_tqdm):
            results[place] = likelihood.logprob, likelihood.is_greedy
            if requests[place][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[place][0], results[place])
        return [results[place] for place in range(len(texts))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """How likely whole documents are, in windows that see all the context they can; each token counts once."""
        owners, windows = [], []
        for number, (text,) in enumerate(request.args for request in requests):
            for window in get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length - 1, context_len=1
            ):
                owners.append(number)
                windows.append((None, *make_disjoint_window(window)))
        totals = [0.0] * len(requests)
        for number, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[number] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to a stop string that the text does not hold."""
        answers: dict[int, str] = {}
        by_choices: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            by_choices.setdefault(repr(sorted(request.args[1].items())), []).append(place)
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm) as bar:
            for places in by_choices.values():
                choices = self._choices(requests[places[0]].args[1])
                prompts = self._prompts([requests[place].args[0] for place in places], choices["max_tokens"])
                for index, generation in self.llama.iter_generations(prompts, **choices):
                    place = places[index]
                    answers[place] = generation.text
                    self.cache_hook.add_partial("generate_until", requests[place].args, generation.text)
                    bar.update()
        return [answers[place] for place in range(len(requests))]

    def _choices(self, given: dict[str, Any]) -> dict[str, Any]:
        """A task's choices in our words."""
        eos = self.llama.tokenizer.decode([self.eot_token_id], special=True)
        choices = normalize_gen_kwargs(dict(given), MAX_GEN_TOKS)
        greedy = not choices.get("do_sample")
        stops = [text for text in handle_stop_sequences(choices.pop("until", None), eos=eos) if text != eos]
        ours = {"max_tokens": int(choices.pop("max_gen_toks")), "stop": tuple(stops)}
        ours |= {name: choices.pop(name) for name in _SAMPLING if name in choices}
        unknown = [name for name in choices if name not in _IGNORED]
        if unknown:
            raise OptionError(f"lm-eval: the task asks for {unknown[0]!r}, which is not supported", param=unknown[0])
        return ours | ({"temperature": 0.0} if greedy else {})

    def _prompts(self, texts: Iterable[str], max_tokens: int) -> list[list[int]]:
        """Ids that leave room for the answer."""
        room = self.max_length - max_tokens
        if room < 1:
            raise ContextError(
                f"lm-eval: answers of {max_tokens} tokens leave no room in the context of {self.max_length}",
                max_tokens,
                self.max_length,
            )
        prompts = [self.tok_encode(text) for text in texts]
        _warn_of_cut(sum(len(ids) > room for ids in prompts), len(prompts))
        return [ids[-room:] for ids in prompts]


def run_tasks(
    llama: Llama, name: str, tasks: Sequence[str], limit: int | None, shots: int | None
) -> list[dict[str, Any]]:
    """Have lm-eval measure a model on its own tasks, which fetches their items by itself.

    Returns:
        A row for each task and group, in the form that `camelid eval --json` has.

    Raises:
        OptionError: lm-eval has no such task, or cannot run it.
    """
    started = time.perf_counter()
    manager = TaskManager()
    wrong = [task for task in tasks if not manager.match_tasks([task])]
    if wrong:
        raise OptionError(f"lm-eval:{wrong[0]}: lm-eval {version('lm-eval')} has no such task; see lm_eval ls tasks")
    try:
        done = simple_evaluate(
            model=CamelidLM(llama), tasks=list(tasks), limit=limit, num_fewshot=shots, task_manager=manager
        )
    except (OSError, ValueError, ImportError) as error:  # items that cannot be fetched, packages that a task needs
        raise OptionError(f"lm-eval: {str(error).splitlines()[0]}") from error
    return [_row(done, task, name, round(time.perf_counter() - started, 3)) for task in done["results"]]


def _row(done: dict[str, Any], task: str, model: str, seconds: float) -> dict[str, Any]:
    figures, n_items = done["results"][task], done["n-samples"].get(task, {})
    metrics = {
        key: {"value": value, "stderr": figures.get(f"{name}_stderr,{rest}")}
        for key, value in figures.items()
        if isinstance(value, int | float) and "_stderr" not in key
        for name, _, rest in (key.partition(","),)
        if rest
    }
    return {
        "task": f"lm-eval:{task}",
        "model": model,
        "n": n_items.get("effective"),
        "shots": done["n-shot"].get(task),
        "metrics": metrics,
        "conditions": {"harness": f"lm-eval {version('lm-eval')}", "task_version": done["versions"].get(task)},
        "seconds": seconds,
    }


def _warn_of_cut(n_cut: int, n_texts: int) -> None:
    if n_cut:
        log.warning("%d of %d texts are too long for the context and lost tokens on the left", n_cut, n_texts)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
