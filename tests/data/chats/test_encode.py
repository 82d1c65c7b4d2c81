"""Ids and masks are those of transformers and TRL; what is too long is cut at whole turns, or refused."""

from __future__ import annotations

import random

import numpy as np
import pytest

from camelid.data.chats.best_fit import best_fit
from camelid.data.chats.encode import LEARNED, SECOND, Encoder, without_first_turn
from camelid.data.chats.model import ChatModel, read_chat_model
from camelid.data.chats.records import ChatRecord, MisfitError
from camelid.errors import OptionError
from tests.data.chats.chat_models import CHATML, CHATML_TAGGED, LLAMA3_TAGGED, chat_tokenizer, chatml, conversations

LLAMA3 = LLAMA3_TAGGED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
USER, BOT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}


def encoder(model: ChatModel, form="conversations", context=10_000, too_long="drop") -> Encoder:
    return Encoder(model.tokenizer, model.chat_format, form, context, too_long)


def transformers_tokenizer(model: ChatModel, folder, template: str):
    transformers = pytest.importorskip("transformers")
    model.save(folder)
    opened = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    opened.chat_template = template
    return opened


@pytest.mark.parametrize(
    ("model", "tagged"),
    [
        (ChatModel(chat_tokenizer(), template=CHATML), CHATML_TAGGED),
        (ChatModel(chat_tokenizer(), template=CHATML_TAGGED), CHATML_TAGGED),
        (ChatModel(chat_tokenizer(), name="chatml"), CHATML_TAGGED),
        (ChatModel(chat_tokenizer("<|eot_id|>"), template=LLAMA3), LLAMA3_TAGGED),
        (ChatModel(chat_tokenizer("<|eot_id|>"), name="llama3"), LLAMA3_TAGGED),
    ],
    ids=["template", "tagged template", "chatml", "llama3 template", "llama3"],
)
def test_masks_are_those_of_transformers(model, tagged, tmp_path):
    oracle, encode = transformers_tokenizer(model, tmp_path, tagged), encoder(model)
    for messages in conversations(25, seed=1):
        wanted = oracle.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, add_generation_prompt=False
        )
        made = encode(ChatRecord(messages))
        assert made.ids.tolist() == wanted["input_ids"]
        assert made.mask.tolist() == wanted["assistant_masks"]
        ends = [text for id, text in ((i, model.tokenizer.piece(i)) for i in made.ids[made.mask == LEARNED].tolist())]
        assert ends[-1] in ("<|im_end|>", "<|eot_id|>"), "the end of the turn is learned"


def test_a_prompt_ends_behind_the_opening(tmp_path):
    model = chatml()
    oracle, encode = transformers_tokenizer(model, tmp_path, CHATML), encoder(model, "prompts")
    for messages in conversations(10, seed=2):
        made = encode(ChatRecord(messages[:-1]))
        assert made.ids.tolist() == oracle.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
        assert not made.mask.any()


def test_of_a_pair_the_last_answer_alone_is_learned():
    model = chatml()
    for messages in conversations(20, seed=3):
        rejected = {"role": "assistant", "content": messages[-1]["content"] + "!"}
        made = encoder(model, "preferences")(ChatRecord(messages[:-1], messages[-1], rejected))
        (second,) = np.flatnonzero(made.mask & SECOND)
        for part, answer in ((slice(second), messages[-1]), (slice(second, None), rejected)):
            ids, learned = made.ids[part], made.mask[part] & LEARNED
            alone = model.tokenizer.encode_marked("", "") + ids[learned == 1].tolist()
            assert model.tokenizer.decode(alone) == answer["content"]
            prompt = encoder(model, "prompts")(ChatRecord(messages[:-1])).ids
            assert ids[: len(prompt)].tolist() == prompt.tolist()
            assert np.flatnonzero(learned)[0] == len(prompt), "the boundary is the end of the prompt"


def test_a_weight_of_zero_is_only_read():
    model = chatml()
    first, second = {**BOT, "content": "One.", "weight": 0}, {**BOT, "content": "Two."}
    made = encoder(model)(ChatRecord([USER, first, USER, second]))
    assert model.tokenizer.decode(made.ids[made.mask == LEARNED].tolist()) == "Two."
    with pytest.raises(MisfitError, match="no token of it is learned"):
        encoder(model)(ChatRecord([USER, first]))


def test_a_template_without_a_mask_is_refused():
    silent = ChatModel(chat_tokenizer(), template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    with pytest.raises(MisfitError, match="shows no mask"):
        encoder(silent)(ChatRecord([USER, BOT]))
    empty = CHATML_TAGGED.replace("{{ m['content'] }}<|im_end|>{% endgeneration %}", "{% endgeneration %}")
    with pytest.raises(MisfitError, match="no token of it is learned"):
        encoder(ChatModel(chat_tokenizer(), template=empty))(ChatRecord([USER, BOT]))


def test_what_is_too_long_is_cut_at_turns_and_never_inside_an_answer():
    model, draw = chatml(), random.Random(4)
    for messages in conversations(30, seed=4, most_turns=5):
        whole = encoder(model)(ChatRecord(messages))
        context = draw.randint(len(whole.ids) // 3, len(whole.ids))
        encode = encoder(model, context=context, too_long="cut")
        kept = messages
        while kept is not None and len(encoder(model)(ChatRecord(kept)).ids) > context:
            kept = without_first_turn(kept)
        if kept is None:
            with pytest.raises(MisfitError, match="longer than the context"):
                encode(ChatRecord(messages))
            continue
        made = encode(ChatRecord(messages))
        assert list(made.messages) == kept
        assert made.n_cut == len(messages) - len(kept)
        assert made.ids.tolist() == encoder(model)(ChatRecord(kept)).ids.tolist()
        assert kept[-1] == messages[-1]
        assert kept[0]["role"] == messages[0]["role"], "a system message stays, else the user begins"
    with pytest.raises(OptionError, match="raise the context"):
        encoder(model, context=3, too_long="error")(ChatRecord([USER, BOT]))


def test_a_model_is_kept_in_a_folder(tmp_path):
    model = chatml()
    model.save(tmp_path)
    again = read_chat_model(tmp_path)
    assert again.about() == model.about()
    assert encoder(again)(ChatRecord([USER, BOT])).ids.tolist() == encoder(model)(ChatRecord([USER, BOT])).ids.tolist()


@pytest.mark.slow
def test_masks_are_those_of_trl(tmp_path):
    """TRL's own templates for training have the tags; the stock ones beside them have none."""
    trl = pytest.importorskip("trl")
    from trl.chat_template_utils import get_training_chat_template
    from trl.data_utils import extract_prompt

    assert trl.__version__
    folder = __import__("pathlib").Path(trl.__file__).parent / "chat_templates"
    for name, eos in (("qwen2_5", "<|im_end|>"), ("llama3", "<|eot_id|>")):
        stock = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        model = ChatModel(chat_tokenizer(eos), template=stock)
        (tmp_path / name).mkdir()
        oracle = transformers_tokenizer(model, tmp_path / name, stock)
        oracle.bos_token = model.tokenizer.piece(model.tokenizer.bos_id) if model.tokenizer.bos_id is not None else None
        training = get_training_chat_template(oracle) or stock
        assert "generation" in training
        for messages in conversations(25, seed=5):
            wanted = oracle.apply_chat_template(
                messages,
                chat_template=training,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            made = encoder(model)(ChatRecord(messages))
            assert made.ids.tolist() == wanted["input_ids"], name
            learned = np.array(wanted["assistant_masks"])
            if (
                name == "qwen2_5"
            ):  # TRL learns two ends of lines more: what the prompt brings, and what comes after the end
                edges = np.flatnonzero(np.diff(np.concatenate([[0], learned, [0]])))
                for place in (*edges[::2], *edges[1::2] - 1):
                    assert model.tokenizer.piece(int(made.ids[place])) == "\n"
                    learned[place] = 0
            assert made.mask.tolist() == learned.tolist(), name
            rejected = [*messages[:-1], {"role": "assistant", "content": "No."}]
            shared = extract_prompt({"chosen": messages, "rejected": rejected})
            assert shared["prompt"] == messages[:-1]


@pytest.mark.slow
def test_rows_are_as_full_as_those_of_trl():
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    draw = random.Random(6)
    for _ in range(5):
        context = draw.randint(40, 120)
        lengths = [draw.randint(1, context) for _ in range(draw.randint(1, 400))]
        packed = pack_dataset(Dataset.from_dict({"input_ids": [[0] * n for n in lengths]}), context, "bfd")
        ours = best_fit(np.array(lengths), context)
        filled = sorted(sum(lengths[number] for number in row) for row in ours)
        assert filled == sorted(len(row) for row in packed["input_ids"])
