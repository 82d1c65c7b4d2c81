"""Several answers to each prompt, what they are worth, and how much of it is more than their group's mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.chats.examples import Example, Prompt
from camelid.data.chats.records import to_messages
from camelid.errors import FormatError, MissingError, NumericsError, OptionError, one_of
from camelid.files import writing
from camelid.train.makers.judging import UNSAFE, Answered, CodeJudge, Judge, ModelJudge

if TYPE_CHECKING:
    from camelid.data.chats.prompts import Prompts
    from camelid.engine.reward import RewardModel
    from camelid.tokens.tokenizer import Tokenizer
    from camelid.train.answers.stage import OwnAnswersOptions
    from camelid.train.mixed_precision import Learner
    from camelid.train.parallel import Parallel
    from camelid.train.rollouts.rollouts import Answer, Rollouts
    from camelid.train.run_stage import RunStage

CODE = "code:"
FOLDER = "rollouts"

Rewards = str | dict[str, float]
"""A reward's name, or several with what each is multiplied by."""


@dataclass(frozen=True)
class Group:
    """A prompt with its answers, judged.

    Attributes:
        answers: as they were written, G of them.
        texts: the same without what ended them.
        scores: (G, number of rewards), as each judge says.
        rewards: (G,), their weighted sum.
        gains: (G,), the advantages.
    """

    prompt: Prompt
    answers: Sequence[Answer]
    texts: Sequence[str]
    scores: NDArray[np.float64]
    rewards: NDArray[np.float64]
    gains: NDArray[np.float64]

    @property
    def is_flat(self) -> bool:
        """Whether all answers are worth the same, so that nothing can be learned from them."""
        return bool((self.rewards == self.rewards[0]).all())

    @property
    def is_one(self) -> bool:
        """Whether all answers are the same."""
        return len({answer.ids for answer in self.answers}) == 1

    def examples(self) -> list[Example]:
        """Each answer behind its prompt; what the model wrote is learned."""
        made = []
        for answer in self.answers:
            ids = np.concatenate([self.prompt.ids, np.array(answer.ids, np.int64)])
            made.append(Example(ids, np.arange(len(ids)) >= len(self.prompt.ids)))
        return made


class Judges:
    """Who says what answers are worth.

    Args:
        named: judges by what the recipe calls them, in its order.
        weights: of each.
    """

    def __init__(self, named: Mapping[str, Judge], weights: Sequence[float]) -> None:
        self.names, self._judges = tuple(named), tuple(named.values())
        self.weights = np.array(weights, np.float64)

    def scores(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
        """For each prompt (G, number of judges).

        Raises:
            NumericsError: a reward is not a number. FormatError: a prompt has no right answer.
        """
        asked = [
            Answered(tuple(to_messages(prompt.messages)), text, prompt.about)
            for prompt, own in zip(prompts, texts, strict=True)
            for text in own
        ]
        columns = [[score.reward for score in judge.scores(asked)] for judge in self._judges]
        table = np.array(columns, np.float64).reshape(len(self._judges), len(asked)).T
        edges = np.cumsum([len(own) for own in texts])[:-1]
        return np.split(table, edges)


def open_judges(stage: RunStage, rewards: Rewards, safety: str | None = None, threshold: float = UNSAFE) -> Judges:
    """What a stage's table names.

    Args:
        safety: a second model, which has the say where safety is at stake: see `makers.judging.gate`.
        threshold: the probability of being safe below which it is.

    Raises:
        OptionError: there is no such check by code. MissingError, FormatError: no such reward model.
    """
    weights = {rewards: 1.0} if isinstance(rewards, str) else rewards
    named: dict[str, Judge] = {}
    for name in weights:
        if not name.startswith(CODE):
            named[name] = ModelJudge(_open(stage, name), None if safety is None else _open(stage, safety), threshold)
            continue
        if safety is not None:
            raise OptionError("safety_reward: only a reward model is gated by another; leave it out", param="reward")
        known = name.removeprefix(CODE)
        if known not in stage.rewards:
            hint = one_of(known, stage.rewards) if stage.rewards else "there are none here"
            raise OptionError(f"{stage.name}.reward: no check by code {known!r}; {hint}", param="reward")
        named[name] = CodeJudge(known, stage.rewards[known])
    return Judges(named, list(weights.values()))


def _open(stage: RunStage, name: str) -> RewardModel:
    from camelid.engine.reward import RewardModel

    path = stage.start(name)
    assert path is not None
    return RewardModel.open(path)


class GroupWriter:
    """Writes answers with the weights of now, and has them judged; every rank makes one, and its own share.

    Args:
        options: of the stage.
        prompts: in their order; as many in a step as are learned from in one.
        judges: who says what answers are worth.
        stop_ids: what ends an answer.
        parallel: the ranks.
        folder: of the stage, where what was written is put on record.

    Attributes:
        seen: means over what was written last, all ranks together, by the names of metrics.
    """

    def __init__(
        self,
        options: OwnAnswersOptions,
        prompts: Prompts,
        judges: Judges,
        stop_ids: Sequence[int],
        parallel: Parallel,
        folder: Path,
    ) -> None:
        self._options, self._prompts, self._judges, self._parallel = options, prompts, judges, parallel
        self._stop_ids, self._folder = tuple(stop_ids), folder
        self._rollouts: Rollouts | None = None
        self.seen: dict[str, float] = {}

    def groups(self, number: int, learner: Learner) -> list[Group]:
        """This rank's share of a generation, from 0.

        Raises:
            NumericsError: a reward is not a number, or all answers to every prompt are the same.
            FormatError: a prompt has no right answer.
        """
        parallel, options, step = self._parallel, self._options, number * self._options.span + 1
        numbers, prompts = self._asked(number)
        answers = self._write(numbers, prompts, learner)
        found: list[Group] = []
        parallel.each(lambda: found.extend(self._judged(prompts, answers)))
        if options.scale == "batch":
            found = self._over_all(found)
        writes = parallel.rank % parallel.tensor_ranks == 0  # of ranks that write the same, one
        names = self._judges.names
        parallel.each(lambda: write_groups(self._folder, step, parallel.data_rank, found, names) if writes else None)
        self._look(step, found)
        return found

    def _asked(self, number: int) -> tuple[list[int], list[Prompt]]:
        """This rank's prompts of a generation and their numbers in the order of all, minibatch by minibatch: how many
        ranks there are changes neither what a step learns nor with which seed an answer was written."""
        rank, ranks, parts = self._parallel.data_rank, self._parallel.data_ranks, self._options.minibatches
        numbers, prompts = list[int](), list[Prompt]()
        for step in range(number * parts, (number + 1) * parts):
            own = self._prompts.step(step, rank, ranks)
            first = step * self._prompts.per_step + rank * len(own)
            numbers += range(first, first + len(own))
            prompts += own
        return numbers, prompts

    def _write(self, numbers: Sequence[int], prompts: Sequence[Prompt], learner: Learner) -> list[list[Answer]]:
        from camelid.train.rollouts.rollouts import Rollouts, seeds_of

        options = self._options
        if self._rollouts is None:
            self._rollouts = Rollouts(
                *(learner.model, self._prompts.tokenizer),
                context=options.context,
                precision=options.precision,
                max_running=options.max_running,
            )
        else:
            self._rollouts.update(learner.model)
        return self._rollouts.answers(
            [prompt.ids.tolist() for prompt in prompts],
            options.answers,
            max_tokens=options.max_tokens,
            seed=seeds_of(self._prompts.seed, numbers),
            stop_ids=self._stop_ids,
            temperature=options.temperature,
            top_p=options.top_p,
        )

    def _judged(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[Answer]]) -> list[Group]:
        import torch

        from camelid.train.losses.grpo import advantages

        texts = [[text_of(self._prompts.tokenizer, answer) for answer in own] for own in answers]
        groups = []
        scale = "none" if self._options.scale == "batch" else self._options.scale
        every = self._judges.scores(prompts, texts)
        for prompt, own, said, scores in zip(prompts, answers, texts, every, strict=True):
            rewards = scores @ self._judges.weights
            gains = advantages(torch.from_numpy(rewards)[None], scale)[0].numpy()
            groups.append(Group(prompt, own, said, scores, rewards, gains))
        return groups

    def _over_all(self, groups: Sequence[Group]) -> list[Group]:
        """Advantages divided by the deviation of all rewards of all ranks."""
        from camelid.train.losses.grpo import EPS

        ranks = self._parallel.everyone([group.rewards for group in groups])[:: self._parallel.tensor_ranks]
        deviation = float(np.concatenate([rewards for own in ranks for rewards in own]).std(ddof=1))
        return [replace(group, gains=group.gains / (deviation + EPS)) for group in groups]

    def _look(self, step: int, groups: Sequence[Group]) -> None:
        """Measure what was written, and see that the policy still writes."""
        import torch

        answers = [answer for group in groups for answer in group.answers]
        rewards = np.concatenate([group.rewards for group in groups])
        own = [len(groups), sum(group.is_one for group in groups), sum(group.is_flat for group in groups), len(answers)]
        own += [sum(len(answer.ids) for answer in answers), sum(not answer.finished for answer in answers)]
        sums = [*own, rewards.sum(), (rewards**2).sum(), sum(group.rewards.std() for group in groups)]
        sums += np.concatenate([group.scores for group in groups]).sum(0).tolist()
        wide = torch.tensor(sums, dtype=torch.float64, device=self._parallel.device)
        n_groups, same, flat, count, tokens, cut, reward, squares, spread, *each = self._parallel.sum(wide).tolist()
        if same == n_groups and self._all_one(groups):
            raise NumericsError(
                f"step {step}: the policy has collapsed: all {self._options.answers} answers to each of "
                f"{n_groups:.0f} prompts are the same; let a further stage begin from an earlier checkpoint, with a "
                "lower learning rate or a larger beta"
            )
        mean = reward / count
        self.seen = {"reward": mean, "reward_deviation": max(0.0, squares / count - mean**2) ** 0.5}
        self.seen |= {"group_deviation": spread / n_groups, "flat_groups": flat / n_groups}
        self.seen |= {"answer_tokens": tokens / count, "unfinished": cut / count}
        if len(each) > 1:
            names = (name.removeprefix(CODE) for name in self._judges.names)
            self.seen |= {f"reward {name}": value / count for name, value in zip(names, each, strict=True)}

    def _all_one(self, groups: Sequence[Group]) -> bool:
        """Whether that says anything: where each prompt has one answer, all prompts' must be the same."""
        if self._options.answers > 1:
            return True
        ranks = self._parallel.everyone([list(answer.ids) for group in groups for answer in group.answers])
        return sum(map(len, ranks)) > 1 and all(ids == ranks[0][0] for own in ranks for ids in own)


def text_of(tokenizer: Tokenizer, answer: Answer) -> str:
    """What was written, without the token that ended it."""
    return tokenizer.decode(list(answer.ids[:-1] if answer.finished else answer.ids))


def write_groups(folder: Path, step: int, rank: int, groups: Sequence[Group], names: Sequence[str]) -> None:
    """Put what a step learns from into `rollouts/step12.0.jsonl`, a line for each answer; written anew where it is."""
    lines = []
    for place, group in enumerate(groups):
        asked = {
            "group": place,
            "messages": [dict(message) for message in group.prompt.messages],
            "about": dict(group.prompt.about),
        }
        for number, answer in enumerate(group.answers):
            own = {"answer": group.texts[number], "finished": answer.finished, "tokens": len(answer.ids)}
            own |= {"reward": float(group.rewards[number]), "advantage": float(group.gains[number])}
            scores = {name: float(score) for name, score in zip(names, group.scores[number], strict=True)}
            lines.append(json.dumps({"step": step, **asked, **own, "scores": scores}, ensure_ascii=False))
    path = folder / FOLDER / f"step{step}.{rank}.jsonl"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class WrittenSteps:
    """What the steps of a stage learned from, as it lies in its folder: for `camelid inspect`.

    Args:
        folder: of the stage.
        span, minibatches: steps of a generation, and into how many it is cut.
        fingerprint: of the prompts.
    """

    def __init__(self, folder: Path, span: int, minibatches: int, fingerprint: str) -> None:
        self._folder, self._span, self._parts, self._fingerprint = folder / FOLDER, span, minibatches, fingerprint

    def fingerprint(self) -> str:
        """Of the prompts."""
        return self._fingerprint

    def rows_of(self, step: int) -> list[list[dict[str, Any]]]:
        """Each prompt's answers, of a step from 0, as `Batches.rows_of` tells of documents.

        Raises:
            MissingError: it was not written, or is gone. FormatError: it is damaged.
        """
        number, within = divmod(step, self._span)
        paths = self._folder.glob(f"step{number * self._span + 1}.*.jsonl")
        rows: list[list[dict[str, Any]]] = []
        for path in sorted(paths, key=lambda path: int(path.suffixes[0][1:])):
            try:
                groups = _groups(path)
                size = len(groups) // self._parts
                start = within % self._parts * size
                rows += [[_as_document(path.name, row) for row in group] for group in groups[start : start + size]]
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(
                    f"{path}: damaged ({error}); only steps that are trained again write it anew"
                ) from None
        if not rows:
            raise MissingError(f"{self._folder}: nothing was written for step {step + 1} yet, or it is gone")
        return rows


def _groups(path: Path) -> list[list[dict[str, Any]]]:
    """The lines of a file, those of one prompt together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        groups.setdefault(str(row["group"]), []).append({**row, "line": number})
    return list(groups.values())


def _as_document(shard: str, row: Mapping[str, Any]) -> dict[str, Any]:
    about, asked = row["about"], row["messages"][-1]["content"]
    judged = f"[reward {row['reward']:g}, advantage {row['advantage']:+.3f}]"
    place = {"source": about.get("source"), "id": about.get("id"), "licence": about.get("licence"), "url": None}
    place |= {
        "epoch": 0,
        "row": row["group"],
        "shard": shard,
        "document": row["line"],
        "start": 0,
        "stop": row["tokens"],
    }
    scores = {name: row[name] for name in ("reward", "advantage", "scores", "finished")}
    return {**place, **scores, "text": f"{asked}\n\n{row['answer']}\n\n{judged}"}
