"""Answers of the weights of now to the same prompts, every so many steps: how a model changes, in its own words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from camelid.errors import OptionError
from camelid.files import writing
from camelid.run_layout import SAMPLES
from camelid.tokens.templates.chat_format import Message, choose_format
from camelid.train.run_stage import WITHOUT_POLICY

if TYPE_CHECKING:
    from camelid.model.llama_torch import LlamaTorch
    from camelid.train.objective import Objective
    from camelid.train.rollouts.rollouts import Rollouts
    from camelid.train.run_stage import RunStage


class Sampler:
    """Writes samples.jsonl of a stage, as its option `samples` says; every rank makes one and calls it with the others.

    Nothing of the training depends on it: it has random numbers of its own.

    Raises:
        OptionError: the stage's model does not write, or a prompt does not fit.
    """

    def __init__(self, stage: RunStage, objective: Objective[Any]) -> None:
        self._options, self._objective, self._stage = objective.options.samples, objective, stage
        self._rollouts: Rollouts | None = None
        if self._options.every and stage.kind in WITHOUT_POLICY:
            raise OptionError(f"{stage.name}.samples: a model of kind {stage.kind} does not write; leave them out")
        if self._options.every:
            self._prompts, self._stop_ids = self._encode()

    def after(self, step: int, model: LlamaTorch) -> None:
        """Sample if it is time: before the first step, and after every `samples.every`-th.

        Raises:
            ResourceError: there is no memory for the engine, or the file cannot be written.
        """
        if self._options.every and step % self._options.every == 0:
            self._take(model)
            if self._stage.parallel.is_main:
                self._write(step)
            self._stage.parallel.barrier()

    def _encode(self) -> tuple[list[list[int]], list[int]]:
        """The prompts as ids, and what ends an answer: in the model's chat format, if it has one."""
        tokenizer, weights = self._objective.tokenizer, self._objective.written_as()
        eos = tokenizer.eos_id
        stops = set() if eos is None else {eos}
        if weights is None or (weights.chat_template is None and not weights.named_templates):
            prompts = [tokenizer.encode(prompt, bos=True) for prompt in self._options.prompts]
        else:
            form = choose_format(tokenizer, weights.chat_template, None, weights.named_templates)
            prompts = [form.render(tokenizer, [Message("user", prompt)]).ids for prompt in self._options.prompts]
            stops |= {*weights.stop_ids, *form.stop_ids(tokenizer)}
        room = self._objective.options.context - self._options.max_tokens
        for prompt, ids in zip(self._options.prompts, prompts, strict=True):
            if len(ids) > room:
                raise OptionError(
                    f"{self._stage.name}.samples: {prompt[:40]!r} has {len(ids)} tokens, and max_tokens leave {room} "
                    "of the context; shorten it"
                )
        return prompts, sorted(stops)

    def _take(self, model: LlamaTorch) -> None:
        """Give the engine the weights of now."""
        if self._rollouts is not None:
            self._rollouts.update(model)
            return
        from camelid.train.rollouts.rollouts import Rollouts

        options = self._objective.options
        self._rollouts = Rollouts(
            model,
            self._objective.tokenizer,
            context=options.context,
            precision=options.precision,
            max_running=len(self._prompts),
        )

    def _write(self, step: int) -> None:
        assert self._rollouts is not None
        options = self._options
        answered = self._rollouts.answers(
            self._prompts,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=self._objective.seed,
            stop_ids=self._stop_ids,
        )
        decode = self._objective.tokenizer.decode
        path = self._stage.folder / SAMPLES
        lines = []
        for prompt, (answer,) in zip(options.prompts, answered, strict=True):
            ids = answer.ids[:-1] if answer.finished else answer.ids
            row = {"step": step, "prompt": prompt, "answer": decode(ids)}
            lines.append(json.dumps(row | {"finished": answer.finished, "tokens": len(answer.ids)}, ensure_ascii=False))
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
