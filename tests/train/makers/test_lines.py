"""Lines of answers that outlive whoever wrote them."""

from __future__ import annotations

import pytest

from camelid.errors import FormatError
from camelid.train.makers.lines import Lines, fingerprint, read_lines, write_lines
from tests.train.killed import dies, kill_me


def test_what_was_written_is_there_again(tmp_path):
    with Lines(tmp_path) as lines:
        lines.add("a", {"answers": ["é\n"]})
        lines.add("b", {"answers": []})
        assert "a" in lines
        assert "c" not in lines
        assert lines["a"]["answers"] == ["é\n"]
    with Lines(tmp_path) as lines:
        assert len(lines) == 2
        assert lines["a"] == {"key": "a", "answers": ["é\n"]}


def test_half_a_line_is_cut_off_and_written_anew(tmp_path):
    with Lines(tmp_path) as lines:
        lines.add("a", {"n": 1})
        lines.add("b", {"n": 2})
    whole = (tmp_path / "0.jsonl").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "0.jsonl").write_bytes(whole[:cut])
        with Lines(tmp_path) as lines:
            for key, n in (("a", 1), ("b", 2)):
                if key not in lines:
                    lines.add(key, {"n": n})
        assert (tmp_path / "0.jsonl").read_bytes() == whole


def test_a_killed_process_loses_nothing_that_it_added(tmp_path):
    def work():
        lines = Lines(tmp_path)
        lines.add("a", {"n": 1})
        lines.add("b", {"n": 2})
        kill_me()

    assert dies(work)
    with Lines(tmp_path) as lines:
        assert "a" in lines
        assert "b" in lines


def test_each_rank_sees_what_all_have_written(tmp_path):
    with Lines(tmp_path, 0) as first, Lines(tmp_path, 1) as second:
        first.add("a", {})
        second.add("b", {})
    with Lines(tmp_path, 1) as lines:
        assert "a" in lines
        assert "b" in lines
        lines.add("c", {})
    assert (tmp_path / "0.jsonl").read_bytes() == b'{"key": "a"}\n'


def test_a_foreign_file_is_named(tmp_path):
    (tmp_path / "0.jsonl").write_text('{"key": "a"}\nnonsense\n')
    with pytest.raises(FormatError, match=r"0\.jsonl: line 2: no answer; delete the file"):
        Lines(tmp_path)


def test_a_fingerprint_is_of_every_part():
    assert fingerprint(1, {"a": 1, "b": 2}) == fingerprint(1, {"b": 2, "a": 1})
    assert len({fingerprint(1, {"a": 1}), fingerprint(1, {"a": 2}), fingerprint(2, {"a": 1})}) == 3


def test_files_of_lines_are_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_lines(path, [{"a": "ü"}, {}])
    assert list(read_lines(path)) == [{"a": "ü"}, {}]
    path.write_text("[1]\n")
    with pytest.raises(FormatError, match=r"rows\.jsonl: line 1"):
        list(read_lines(path))
