"""What is asked and what is learned: Ghost Attention, pre-prompts, and the choice of answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from camelid.tokens.templates.message import Message
from camelid.train.makers import ghost, preprompts
from camelid.train.makers.asking import Asked
from camelid.train.makers.making import Question
from camelid.train.makers.selection import select, with_earlier

DIALOGUE = (
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "How are you?"),
    Message("assistant", "Fine."),
    Message("user", "And now?"),
)


def test_the_instruction_stands_behind_every_question_while_sampling():
    asked = ghost.while_sampling(DIALOGUE, "Speak French.")
    assert [message.text for message in asked] == [
        "Hi Speak French.",
        "Hello!",
        "How are you? Speak French.",
        "Fine.",
        "And now? Speak French.",
    ]


@pytest.mark.parametrize("place", ["user", "system"])
def test_it_is_learned_in_the_first_turn_alone_and_of_the_last_answer_only(place):
    learned = ghost.learned_from(DIALOGUE, "Language: French.", "Maintenant.", place)
    assert sum("Language: French." in message["content"] for message in learned) == 1
    first = learned[0]
    assert first["role"] == place
    assert first["content"] == ("Hi Language: French." if place == "user" else "Language: French.")
    weights = [message.get("weight", 1) for message in learned if message["role"] == "assistant"]
    assert weights == [0, 0, 1]
    assert learned[-1] == {"role": "assistant", "content": "Maintenant."}


def test_a_system_message_keeps_what_it_says():
    learned = ghost.learned_from([Message("system", "Be brief."), *DIALOGUE], "Hobby: chess.", "Yes.", "system")
    assert learned[0] == {"role": "system", "content": "Be brief. Hobby: chess."}
    assert [message["role"] for message in learned].count("system") == 1


def test_constraints_are_combined_and_half_of_them_shortened():
    drawn = [ghost.draw(ghost.KINDS, 7, str(number)) for number in range(3000)]
    sizes = Counter(len(each.attributes) for each in drawn)
    assert set(sizes) == {1, 2, 3}
    assert min(sizes.values()) > 850
    assert 0.45 < sum(each.kept != each.full for each in drawn) / 3000 < 0.55
    assert {kind for each in drawn for kind in each.attributes} == {"hobby", "language", "figure"}
    one = next(each for each in drawn if set(each.attributes) == {"figure"} and each.kept != each.full)
    assert one.full == f"Always act as {one.attributes['figure']} from now on."
    assert one.kept == f"Figure: {one.attributes['figure']}."


def test_the_same_seed_and_dialogue_give_the_same_instruction():
    assert ghost.draw(ghost.KINDS, 7, "a") == ghost.draw(ghost.KINDS, 7, "a")
    assert len({ghost.draw(ghost.KINDS, 7, str(number)).full for number in range(50)}) > 20


def test_a_pre_prompt_has_two_adjectives_and_the_template_of_its_risk():
    for number in range(50):
        told = preprompts.pre_prompt(1, str(number))
        assert sum(word in told for word in preprompts.ADJECTIVES) >= 2
        assert "{}" not in told
        risky = preprompts.pre_prompt(1, str(number), "illicit")
        assert risky == f"{told} {preprompts.ANSWERS['illicit']}"
        assert preprompts.pre_prompt(1, str(number), "unheard of") == told


def test_a_pre_prompt_goes_into_the_one_system_message():
    user = Message("user", "How?")
    assert preprompts.with_pre_prompt([user], "Be wise.") == [Message("system", "Be wise."), user]
    asked = preprompts.with_pre_prompt([Message("system", "Be brief."), user], "Be wise.")
    assert asked == [Message("system", "Be wise.\n\nBe brief."), user]


def question(key: str, text: str) -> Question:
    messages = (Message("user", text),)
    return Question(Asked(messages, 3, 1.0), messages, {"id": key})


def lines(asked: list[Question], found: dict) -> Callable[[str], dict]:
    return {each.key: found[each.about["id"]] for each in asked}.__getitem__


def answer(text: str, reward: float, finished: bool = True) -> dict:
    return {"text": text, "finished": finished, "tokens": 3, "reward": reward}


def test_the_best_finished_answer_is_taken_and_everything_is_counted():
    found = {
        "a": {"answers": [answer("x", 1.0), answer("y", 3.0, finished=False), answer("z", 2.0)]},
        "b": {"answers": [answer("same", 0.5), answer("same", 0.5), answer(" ", 9.0)]},
        "c": {"answers": [answer("cut", 1.0, finished=False)] * 3},
    }
    asked = [question(key, f"{key}?") for key in "abc"]
    chosen = select("rejection", asked, lines(asked, found))
    assert [row["messages"][-1]["content"] for row in chosen.rows] == ["z", "same"]
    assert [row["id"] for row in chosen.rows] == ["a", "b"]
    assert chosen.counts == {"prompts": 3, "answers": 9, "unfinished": 4, "duplicates": 3, "without_answer": 1}
    record = chosen.record()
    assert record["mean_chosen_reward"] == pytest.approx(1.25)
    assert record["mean_reward"] == pytest.approx(19 / 9)
    assert record["curve"][2]["max"] == pytest.approx((3 + 9 + 1) / 3)


def test_of_all_iterations_the_better_one_stays():
    found = {key: {"answers": [answer(f"new {key}", 1.0)]} for key in "ab"}
    asked = [question(key, f"{key}?") for key in "ab"]
    now = select("rejection-2", asked, lines(asked, found))

    def earlier(text: str, reward: float) -> dict:
        said = [{"role": "user", "content": text}, {"role": "assistant", "content": f"old {text}"}]
        return {"id": "other", "messages": said, "stage": "rejection", "reward": reward}

    both = with_earlier(now, [earlier("a?", 2.0), earlier("b?", 0.5), earlier("c?", -1.0), earlier("c?", -2.0)])
    answers = {row["messages"][0]["content"]: row["messages"][-1]["content"] for row in both.rows}
    assert answers == {"a?": "old a?", "b?": "new b", "c?": "old c?"}
    assert both.counts["earlier"] == 2
