"""metrics.jsonl: written as it happens, read as it stands, right after kills and resumes."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.errors import FormatError, MissingError, ResourceError
from camelid.train.events import Step
from camelid.train.report.metrics import NAME, Metrics, MetricsWriter, TimeLeft, read_metrics


def step(number: int, loss: float = 1.0, **more) -> Step:
    """A step, with numbers of one's own."""
    own = {name: value for name, value in more.items() if name not in ("validation_loss", "z_loss")}
    values = {"tokens": 64 * number, "grad_norm": 0.5, "lr": 1e-3, "seconds": 0.25, "tokens_per_second": 256.0, **own}
    metrics = {name: value for name, value in more.items() if name not in own and value is not None}
    return Step(step=number, metrics={"trained_tokens": 63, "loss": loss, **metrics}, **values)


def test_what_is_written_is_read(tmp_path):
    with MetricsWriter(tmp_path, steps=10, ranks=2) as record:
        record.write(step(1, 4.0))
        record.write(step(2, 0.1 + 0.2, validation_loss=3.5, mfu=0.4))
        record.event("save", step=2, folder="step2-tokens128")
    found = read_metrics(tmp_path)
    assert list(found.columns["step"]) == [1, 2]
    assert found.points("loss") == ([1, 2], [4.0, 0.1 + 0.2])  # every bit
    assert found.points("validation_loss", "tokens") == ([128], [3.5])
    assert found.points("lr", "seconds")[0] == [0.25, 0.5]
    assert list(found.columns["seconds_left"]) == [9 * 0.25, 8 * 0.25]
    assert [event["event"] for event in found.events] == ["start", "save"]
    assert (found.steps, found.events[0]["ranks"]) == (10, 2)
    assert math.isnan(found.columns["mfu"][0])
    assert "z_loss" not in found.columns
    with pytest.raises(MissingError, match=r"no z_loss yet; it has .*loss"):
        found.points("z_loss")


def test_after_a_resume_the_later_lines_count(tmp_path):
    with MetricsWriter(tmp_path, steps=9) as record:
        for number in range(1, 7):
            record.write(step(number, loss=number))
    with MetricsWriter(tmp_path, steps=9, start=4) as record:
        assert list(read_metrics(tmp_path).columns["step"]) == [1, 2, 3, 4]
        record.write(step(5, loss=50))
    assert read_metrics(tmp_path).points("loss")[1] == [1, 2, 3, 4, 50]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 5)), min_size=1, max_size=6))
def test_any_story_of_kills_reads_as_the_last_telling(tmp_path_factory, sessions):
    """Each session starts from a step that was reached, and does some."""
    folder = tmp_path_factory.mktemp("run")
    want: dict[int, float] = {}
    loss = 0.0
    for start, count in sessions:
        start = min(start, max(want, default=0))
        want = {number: value for number, value in want.items() if number <= start}
        with MetricsWriter(folder, steps=100, start=start) as record:
            for number in range(start + 1, start + count + 1):
                loss += 1
                want[number] = loss
                record.write(step(number, loss))
    xs, ys = read_metrics(folder).points("loss")
    assert dict(zip(xs, ys, strict=True)) == want


def test_half_a_line_is_not_read_and_is_cut_by_the_next_session(tmp_path):
    with MetricsWriter(tmp_path, steps=3) as record:
        record.write(step(1))
    whole = (tmp_path / NAME).read_bytes()
    for tail in (b'{"step": 2, "lo', b"x" * 10_000):
        (tmp_path / NAME).write_bytes(whole + tail)
        assert list(read_metrics(tmp_path).columns["step"]) == [1]
        with MetricsWriter(tmp_path, steps=3, start=1) as record:
            record.write(step(2))
        assert list(read_metrics(tmp_path).columns["step"]) == [1, 2]
    (tmp_path / NAME).write_bytes(b'{"event": "sta')
    MetricsWriter(tmp_path, steps=3).close()
    assert [event["event"] for event in read_metrics(tmp_path).events] == ["start"]


def test_a_reader_follows_a_writer(tmp_path):
    record = MetricsWriter(tmp_path, steps=3)
    followed = Metrics(tmp_path)
    for number in (1, 2):
        record.write(step(number))
        assert len(followed.read()) == number
    record.close()
    (tmp_path / NAME).unlink()
    MetricsWriter(tmp_path, steps=3).close()  # another run in its place
    assert len(followed.read()) == 0


def test_every_line_is_json_even_if_the_loss_is_lost(tmp_path):
    with MetricsWriter(tmp_path, steps=2) as record:
        record.write(step(1, loss=math.nan, grad_norm=math.inf))
    lines = (tmp_path / NAME).read_text().splitlines()
    assert all(isinstance(json.loads(line, parse_constant=pytest.fail), dict) for line in lines)
    assert read_metrics(tmp_path).points("loss") == ([], [])


BROKEN = ("[]", "{}", "nonsense", '{"step": "a"}', '{"event": "start", "step": "a"}', "\0" * 40, "[" * 10**5)


@pytest.mark.parametrize("bad", BROKEN)
def test_a_broken_line_is_left_out_and_named(tmp_path, caplog, bad):
    """As a power cut leaves one: all other steps count, and the run can be looked at."""
    with MetricsWriter(tmp_path, steps=3) as record:
        record.write(step(1))
        record.write(step(2))
    with (tmp_path / NAME).open("a") as file:
        file.write(f"{bad}\n")
    with MetricsWriter(tmp_path, steps=3, start=2) as record:
        record.write(step(3))
    metrics = read_metrics(tmp_path)
    assert metrics.columns["step"].tolist() == [1, 2, 3]
    assert metrics.broken == [4]
    assert "line 4: neither a step nor an event; it is left out" in caplog.text


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"no metrics.jsonl"):
        read_metrics(tmp_path)
    for bad in BROKEN:
        (tmp_path / NAME).write_text(f"{bad}\n")
        with pytest.raises(FormatError, match="line 1"):
            read_metrics(tmp_path)
    with pytest.raises(ResourceError, match="cannot be written"):
        MetricsWriter(tmp_path / "none", steps=1)


def test_one_slow_step_does_not_upset_the_time_left():
    left = TimeLeft(100)
    for number in range(1, 10):
        left.after(step(number, seconds=2.0))
    assert left.after(step(10, seconds=500.0)) == 90 * 2.0
    assert left.after(step(100, seconds=2.0)) == 0
