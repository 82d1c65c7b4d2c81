"""The Runs pages: what is on record is what is seen, live while a run trains, for everyone."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterator

import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from camelid.serve.dependencies import part_of
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.pages import runs
from camelid.serve.pages.run_curves import HEIGHT, LEFT, TOP, WIDTH, nice, panel, thinned
from camelid.serve.pages.runs import RunStore
from camelid.serve.worker import Worker
from camelid.train.report import metrics
from camelid.train.report.metrics import NAME, MetricsWriter, read_metrics
from camelid.weights import save_weights
from tests.serve.conftest import TINY, running
from tests.serve.pages.watched import Watched, playwright
from tests.train.lives import made_life
from tests.train.report.test_metrics import step
from tests.train.test_runs import made_checkpoint, made_run

expect = playwright.expect


@pytest.fixture(scope="module")
def folder(tmp_path_factory, smollm2_path):
    """Three runs: one done, one that trains, one that cannot be read."""
    folder = tmp_path_factory.mktemp("work") / "runs"
    done = made_run(folder / "done" / "pretrain", steps=40, save_every=10)
    (folder / "done" / "recipe.toml").write_text("name = 'done'\nseed = 1\n")
    made_run(folder / "half" / "pretrain", steps=1000, last=5)
    (folder / "half" / "recipe.toml").write_text("name = 'half'\nseed = 2\n")
    (folder / "bad" / "pretrain").mkdir(parents=True)
    (folder / "bad" / "pretrain" / NAME).write_text("no <b>json</b>\n")
    kept = done.folder / "step40-tokens2560"
    save_weights(smollm2_path, folder.parent / "model", format="hf", quant="BF16")
    for file in (folder.parent / "model").iterdir():
        file.rename(kept / file.name)
    return folder


@pytest.fixture(scope="module")
def server(tiny_llama, tmp_path_factory, folder) -> Iterator[object]:
    options = ServeOptions(port=0, data=tmp_path_factory.mktemp("data") / "serve.db", shutdown_seconds=5, runs=folder)
    with running(Models([Worker(TINY, tiny_llama)]), options) as it:
        yield it


@pytest.fixture(scope="module")
def client(server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as it:
        yield it


@pytest.mark.slow
def test_the_list(client, folder):
    html = client.get("/runs").text
    for word in ("done/pretrain", "half/pretrain", "bad/pretrain", "training", "40 of 40", "line 1: neither a step"):
        assert word in html
    assert f"{read_metrics(folder / 'done/pretrain').last('loss'):.4f}" in html
    assert "<b>json" not in html


def test_a_run(client, folder):
    html = client.get("/runs/done/pretrain").text
    metrics = read_metrics(folder / "done/pretrain")
    curve = panel("loss", [("done/pretrain", metrics)], "step")
    assert f'd="{curve.lines[0].raw}"' in html
    assert f'aria-label="{curve.summary}"' in html
    assert len(re.findall("<circle", html)) == 4
    for word in ("Learning rate", "MFU", "step20-tokens1280", "2.56k", "seed = 1", "The curves as numbers"):
        assert word in html
    loss = dict(zip(*metrics.points("loss"), strict=True))
    assert f'<td class="number">{loss[20]:.4f}</td>' in html
    assert "data-live" not in html  # it is done
    assert "data-live" in client.get("/runs/half/pretrain").text
    assert "million tokens" not in client.get("/runs/done/pretrain?x=nonsense").text


def test_a_checkpoint(client, folder):
    html = client.get("/runs/done/pretrain/step40-tokens2560").text
    assert "after 40 steps and 2,560 tokens" in html
    assert "model.safetensors" in html
    empty = client.get("/runs/done/pretrain/step10-tokens640")
    assert (empty.status_code, "notice error" in empty.text) == (200, True)


def test_what_is_not_there(client):
    for path in ("/runs/none/pretrain", "/runs/done/pretrain/step7", "/runs/..%2f/done", "/runs/%2e%2e/pretrain"):
        assert client.get(path).status_code == 404
    assert client.get("/runs/none/pretrain/live").status_code == 404
    assert client.get("/runs/bad/pretrain").status_code == 200


def test_comparing(client):
    html = client.get("/runs/compare?run=done/pretrain&run=half/pretrain&x=tokens").text
    assert "-seed = 1" in html
    assert "+seed = 2" in html
    assert "run-line run-1" in html
    assert client.get("/runs/compare?run=done/pretrain").headers["location"] == "/runs/done/pretrain"
    assert client.get("/runs/compare").headers["location"] == "/runs"


def test_a_life_with_its_stages(client, server, tmp_path):
    made_life(tmp_path / "runs" / "life")
    store = part_of(server.app, RunStore)
    kept, store.folder = store.folder, tmp_path / "runs"
    try:
        html = client.get("/runs/life").text
        names = re.findall(r'<a href="#([\w-]+)">', html)
        assert names == ["pretrain", "sft", "rejection", "ppo", "ppo-2"]
        states = re.findall(r'data-state="(\w+)"', html)
        assert states == ["done", "done", "done", "training", "waiting"]
        for words in ("reward", "KL", "entropy", "clip share", "answer length", "reward of the best of K answers"):
            assert f'aria-label="{words}' in html
        assert "Answer of step 12." in html
        assert "Write a &lt;b&gt;poem" in html
        assert html.index("Answer of step 4.") < html.index("Answer of step 12.")
        assert 'data-live="/runs/life/live?x=step"' in html
        assert client.get("/runs/life/live?x=time").status_code == 200
        page = client.get("/runs/life/ppo").text
        assert '<a href="/runs/life/sft">sft</a>' in page
        assert "Sampled answers" in page
        assert "Circles: validation." in page
        assert client.get("/runs/none").status_code == client.get("/runs/none/live").status_code == 404
    finally:
        store.folder = kept


def test_the_curve_of_the_best_of_k_is_drawn_as_recorded(tmp_path):
    life = made_life(tmp_path / "life")
    drawn = panel("best_of", [("rejection", read_metrics(life / "rejection"))], "step")
    assert drawn.range[:2] == (1.0, 8.0)
    (line,) = drawn.lines
    assert line.strong.count("L") == line.raw.count("L") == 7
    heights = [float(point.split()[1]) for point in line.strong[1:].split("L")]
    assert heights == sorted(heights, reverse=True)  # higher is further up
    assert panel("best_of", [("ppo", read_metrics(life / "ppo"))], "step") is None


def test_a_folder_that_is_not_there_yet(client, server, tmp_path):
    store = part_of(server.app, RunStore)
    kept, store.folder = store.folder, tmp_path / "runs"
    try:
        assert "camelid train tiny" in client.get("/runs").text
        made_run(tmp_path / "runs" / "new" / "pretrain")
        assert "new/pretrain" in client.get("/runs").text
    finally:
        store.folder = kept


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_axes_are_round_and_wide_enough(low, width):
    first, last, ticks = nice(low, low + width)
    slack = 1e-6 * (abs(low) + width + 1)
    assert first <= low + slack
    assert last >= low + width - slack
    assert 2 <= len(ticks) <= 8


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=900))
def test_a_thinned_line_keeps_its_heights(ys):
    points = list(enumerate(ys))
    thin = thinned(points, 100)
    assert len(thin) <= max(100, min(len(points), 100))
    assert {max(ys), min(ys)} == {max(y for _, y in thin), min(y for _, y in thin)}
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)


@given(st.lists(st.floats(0, 20) | st.just(math.nan), min_size=1, max_size=30))
def test_curves_stay_in_their_picture(tmp_path_factory, losses):
    folder = tmp_path_factory.mktemp("run")
    with MetricsWriter(folder, 40, unigram_entropy=6.0) as record:
        for number, loss in enumerate(losses, 1):
            record.write(step(number, loss))
    drawn = panel("loss", [("run", read_metrics(folder))], "time")
    if drawn is None:
        assert all(map(math.isnan, losses))
        return
    for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", drawn.lines[0].raw + drawn.lines[0].strong):
        assert LEFT <= float(x) <= WIDTH
        assert TOP <= float(y) <= HEIGHT


def test_a_page_is_live_while_a_run_trains(page, folder):
    half = folder / "half" / "pretrain"
    page.goto("/runs/half/pretrain")
    expect(page.locator("[data-part=facts]")).to_contain_text("5 of 1,000")
    page.get_by_text("The curves as numbers").click()
    with MetricsWriter(half, 1000, start=5) as record:
        record.write(step(6, 1.2345))
        made_checkpoint(half, 6)
    expect(page.locator("[data-part=facts]")).to_contain_text("6 of 1,000")
    expect(page.locator("[data-part=checkpoints]")).to_contain_text("step6-tokens384")
    expect(page.locator("[data-part=table] details")).to_have_attribute("open", "")
    expect(page.locator("[data-part=table]")).to_contain_text("1.2345")


def test_values_under_the_pointer(page, folder):
    page.goto("/runs/done/pretrain")
    picture = page.locator("svg[data-range]").nth(0)
    picture.hover(position={"x": 5, "y": 50})
    losses = read_metrics(folder / "done/pretrain").points("loss")[1]
    expect(page.locator(".run-value").nth(0)).to_have_text(re.compile(r"^[\d.]+ at 1$"))
    said = float(page.locator(".run-value").nth(0).inner_text().split()[0])
    assert said == pytest.approx(losses[0], rel=0.02)


def test_by_keyboard_and_without_scripts(page, browser, server):
    page.goto("/runs")
    for name in ("done/pretrain", "half/pretrain"):
        page.get_by_label(f"Compare {name}").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Compare")
    page.get_by_role("link", name="tokens").click()
    expect(page.get_by_role("link", name="tokens")).to_have_attribute("aria-current", "true")
    expect(page.locator(".run-1 .run-mean").first).to_be_attached()
    plain = browser.new_context(base_url=server.url, java_script_enabled=False).new_page()
    plain.goto("/runs/done/pretrain")
    expect(plain.get_by_role("img", name="loss, nats a token").first).to_be_visible()
    plain.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 390), ("light", 1280)])
def test_nothing_stands_in_anybodys_way(browser, server, scheme, width):
    watched = Watched(browser, server.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    comparison = "/runs/compare?run=done/pretrain&run=half/pretrain"
    for path in ("/runs", "/runs/done/pretrain", comparison, "/runs/done/pretrain/step40-tokens2560"):
        watched.page.goto(path, wait_until="networkidle")
        for closed in watched.page.locator("summary").all():
            closed.click()
        assert watched.barriers() == []
        assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= width
    watched.context.close()
    assert not watched.wrong


GOOD = [b'{"event": "start", "steps": 9}', b'{"step": 1, "loss": 2.5, "tokens": 64, "seconds": 0.5}']
HUGE = b"9" * 400
DAMAGED = [
    b'{"step": %s, "loss": 1}' % HUGE,
    b'{"step": 1, "loss": %s}' % HUGE,
    b'{"step": 1, "loss": 1e308}',
    b'{"step": 1, "loss": -1e308, "tokens": 1e308}',
    b'{"step": -1, "loss": 1}',
    b'{"step": 1e999, "loss": 1}',
    b'{"event": {"a": 1}}',
    b'{"event": "start", "steps": "x"}',
    b'{"event": "start", "steps": 1e999}',
    b'{"event": "start", "steps": 9, "unigram_entropy": "y"}',
    b'{"event": "start", "unigram_entropy": "3.5"}',
    b"[" * 100_000,
    b"\xff",
    b"7",
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_run_is_shown_as_that_and_the_others_as_they_are(tmp_path, line):
    for name, lines in (("good", GOOD), ("damaged", [*GOOD, line])):
        (tmp_path / name / "pretrain").mkdir(parents=True)
        (tmp_path / name / "pretrain" / NAME).write_bytes(b"".join(line + b"\n" for line in lines))
    store = RunStore(tmp_path)
    for _ in range(2):  # the second time from what was kept
        shown = {run.name: runs.view(run) for run in store.all()}
        assert "line 3: neither a step" in shown["damaged/pretrain"]["wrong"]
        assert {run["facts"]["Loss"] for run in shown.values()} == {"2.5000"}
    runs.panels(store.all(), "step")
    (tmp_path / "damaged" / "pretrain" / NAME).write_bytes(line + b"\n" + GOOD[0] + b"\n")
    for _ in range(2):  # a file that does not begin as a record is none
        assert "line 1: neither a step" in store.get("damaged/pretrain").wrong
        assert store.get("damaged/pretrain").metrics is None
    (tmp_path / "damaged" / "pretrain" / NAME).write_bytes(GOOD[0] + b"\n")
    assert not store.get("damaged/pretrain").wrong


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.none()))
FIELDS = st.sampled_from(["step", "steps", "loss", "validation_loss", "tokens", "seconds", "lr", "event", "mfu"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(FIELDS, VALUES), max_size=4))
@example([{"event": "start"}, {"step": 1, "loss": 1.0, "seconds": 16777216.0}])
def test_no_line_takes_the_page_down(tmp_path, lines):
    folder = tmp_path / "run" / "pretrain"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for shown in RunStore(tmp_path).all():
        runs.view(shown)
        runs.panels([shown], "time")
        runs.table(shown)
        runs.checkpoints(shown)


def test_checkpoints_with_a_damaged_note_are_passed_over(tmp_path):
    made = made_run(tmp_path / "run" / "pretrain", steps=40, save_every=10)
    before = len(made.checkpoints())
    notes = ("{", '{"step": "x"}', '{"step": 1e999, "tokens": 1}', '{"step": 7, "tokens": -1}', "[" * 10**5)
    for number, note in enumerate([*notes, '{"step": %s, "tokens": 1}' % ("9" * 400), '{"step": 6, "tokens": 1e300}']):
        folder = made.folder / f"step{number + 1000}"
        folder.mkdir()
        (folder / "checkpoint.json").write_text(note)
    assert len(made.checkpoints()) == before


def test_reading_copies_nothing_for_each_step(tmp_path, monkeypatch):
    """A column was made anew for each value, so that 400,000 steps took half a minute."""
    folder, made = tmp_path / "pretrain", []
    folder.mkdir()
    lines = [json.dumps({"step": number, "loss": 1.0, "tokens": number}) for number in range(500)]
    (folder / NAME).write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(metrics, "array", lambda *values: made.append(values) or array(*values))
    assert len(read_metrics(folder)) == 500
    assert len(made) < 10
