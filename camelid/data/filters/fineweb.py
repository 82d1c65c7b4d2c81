"""FineWeb's own rules (Penedo and others 2024, https://arxiv.org/abs/2406.17557), with datatrove's definitions."""

from __future__ import annotations

from pydantic import Field

from camelid.data.document import Document
from camelid.data.filters.gopher import duplicates
from camelid.data.stage_stats import StageStats
from camelid.data.word_hashes import Words
from camelid.options import Options

# What ends a sentence in the scripts of the world: Unicode's property Sentence_Terminal, in its common members.
TERMINAL = frozenset(".?!。！？｡．﹒﹖﹗‼‽⁇⁈⁉⸮⸼։؝؞؟۔܀܁܂߹।॥၊။።፧፨᙮។៕᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫")


class FineWeb(Options):
    """Lines that are sentences, and not a list."""

    min_punctuated_lines: float = Field(0.12, ge=0, le=1, description="Share of lines that end a sentence.")
    max_short_lines: float = Field(0.67, ge=0, le=1, description="Share of lines.")
    short_line: int = Field(30, ge=0, description="Characters of a line that is short.")
    max_duplicate_characters: float = Field(0.01, ge=0, le=1, description="Share in lines seen before.")
    max_new_lines: float = Field(0.3, ge=0, description="Line ends for each word.")


def fineweb(document: Document, words: Words, options: FineWeb, stats: StageStats) -> Document | str:
    """Drop lists, menus and what repeats its lines."""
    text = document.text
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    if not lines:
        return "empty"
    if sum(line[-1] in TERMINAL for line in lines) / len(lines) < options.min_punctuated_lines:
        return "few lines with punctuation"
    if sum(len(line) <= options.short_line for line in lines) / len(lines) > options.max_short_lines:
        return "short lines"
    new_lines = text.count("\n")
    if duplicates(lines)[1] / (len(text) - new_lines) > options.max_duplicate_characters:
        return "characters in duplicate lines"
    if new_lines / len(words) > options.max_new_lines:
        return "many new lines"
    return document
