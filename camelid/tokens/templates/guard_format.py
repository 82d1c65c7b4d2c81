"""Prompts of Llama Guard 1 to 3: a policy, a conversation, and the question whether its last turn is safe.

The wording is published in Meta's llama-cookbook (`prompt_format_utils.py`, the form without descriptions), its grammar
slip included; Guard 3's as its own template and Meta's llama-stack write it. Prompts call three categories otherwise
than the model cards do. Codes differ between generations, so a verdict must always be stored with its generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camelid.errors import OptionError
from camelid.tokens.templates.message import Message
from camelid.tokens.templates.rendered import Rendered, Writer, llama3_header
from camelid.tokens.tokenizer import Tokenizer

_GUARD1 = (
    "Violence and Hate",
    "Sexual Content",
    "Criminal Planning",
    "Guns and Illegal Weapons",
    "Regulated or Controlled Substances",
    "Self-Harm",
)
_CRIMES = ("Violent Crimes", "Non-Violent Crimes", "Sex-Related Crimes", "Child Sexual Exploitation")
_RIGHTS = ("Specialized Advice", "Privacy", "Intellectual Property", "Indiscriminate Weapons", "Hate")
_BODY = ("Suicide & Self-Harm", "Sexual Content")
_GUARD2 = (*_CRIMES, *_RIGHTS, *_BODY)
_GUARD3_1B = (*_CRIMES, "Defamation", *_RIGHTS, *_BODY, "Elections")

# What prompts say instead of the model cards' names.
_ASKED = {
    "Sex-Related Crimes": "Sex Crimes",
    "Child Sexual Exploitation": "Child Exploitation",
    "Suicide & Self-Harm": "Self-Harm",
}


@dataclass(frozen=True)
class Guard:
    """A generation of the model.

    Attributes:
        prefix: the letter of its codes.
        categories: in order, as its model card names them.
        bos: the token its prompt begins with.
        headers: asked between Llama 3's headers, else between Llama 2's instruction marks.
        bullet: before its instructions.
        judges: whom it is asked about.
        after_category, after_prompt: blanks at these places, which are part of the published text.
    """

    prefix: str
    categories: tuple[str, ...]
    bos: str = "<|begin_of_text|>"
    headers: bool = True
    bullet: str = " - "
    judges: str = "ONLY THE LAST {role} message"
    after_category: str = ""
    after_prompt: str = " "

    def codes(self) -> dict[str, str]:
        """Code → name of the category in this generation, as its model card has it."""
        return {f"{self.prefix}{number}": name for number, name in enumerate(self.categories, start=1)}


GUARDS = {
    "guard1": Guard("O", _GUARD1, bos="<s>", headers=False, bullet="- ", judges="{role}", after_prompt=""),
    "guard2": Guard("S", _GUARD2, headers=False, after_category=" ", after_prompt=""),
    "guard3": Guard("S", (*_GUARD3_1B, "Code Interpreter Abuse")),
    "guard3-1b": Guard("S", _GUARD3_1B),
}


def guard_prompt(generation: str, messages: Sequence[Message]) -> str:
    """The text that a guard is asked, which judges the last message.

    Raises:
        OptionError: a role other than user and assistant, or no message.
    """
    guard = GUARDS[generation]
    names = {"user": "User", "assistant": "Agent"}
    for message in messages:
        if message.role not in names:
            raise OptionError(f"chat format {generation!r}: judges user and assistant, got a {message.role!r} message")
    role = names[messages[-1].role]
    names_asked = ((code, _ASKED.get(name, name)) for code, name in guard.codes().items())
    policy = "\n".join(f"{code}: {name}.{guard.after_category}" for code, name in names_asked)
    turns = "\n\n".join(f"{names[message.role]}: {message.text.strip()}" for message in messages)
    return (
        f"Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy "
        "with the below categories.\n\n"
        f"<BEGIN UNSAFE CONTENT CATEGORIES>\n{policy}\n<END UNSAFE CONTENT CATEGORIES>\n\n"
        f"<BEGIN CONVERSATION>\n\n{turns}\n\n<END CONVERSATION>\n\n"
        f"Provide your safety assessment for {guard.judges.format(role=role)} in the above conversation:\n"
        f"{guard.bullet}First line must read 'safe' or 'unsafe'.\n"
        f"{guard.bullet}If unsafe, a second line must include a comma-separated list of violated categories."
        f"{guard.after_prompt}"
    )


def write_guard(generation: str, tokenizer: Tokenizer, messages: Sequence[Message], opens: bool) -> Rendered:
    """The prompt as ids, up to where the verdict begins; all of it is asked, so nothing in it is an assistant's.

    Guard 1 and 2 are asked between Llama 2's instruction marks, which are plain text, even to Llama 3's vocabulary.
    Guard 3 is asked in Llama 3's headers, with the blank line, so that the first id of the answer is the verdict
    itself; the header of the answer is left out unless `opens`.
    """
    text, special = guard_prompt(generation, messages), tokenizer.special_ids
    writer = Writer(tokenizer)
    writer.add([special[GUARDS[generation].bos]])
    if not GUARDS[generation].headers:
        writer.add(tokenizer.encode(f"[INST] {text} [/INST]"))
        return writer.done()
    writer.add([*llama3_header(tokenizer, "user"), *tokenizer.encode_segment(text), special["<|eot_id|>"]])
    if opens:
        writer.add(llama3_header(tokenizer, "assistant"))
    return writer.done()
