"""Photograph the README's pages: a real browser on a server that runs already.

    camelid train tiny
    camelid eval arc-challenge
    camelid serve
    camelid plot runs/tiny --out docs/pictures/train.png
    python docs/pictures/photograph.py http://127.0.0.1:8000 [NAME...]

The pictures arena-… are of `camelid arena serve`, with two local models.

Needs Debian's chromium, and playwright and Pillow from camelid's `test` extra.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

HERE = Path(__file__).parent
COLOURS = 256  # of a picture's palette: pages have few, and files stay small


def flow(page: Page) -> None:
    """The deck's sentence, two branches, and a sampling step that removes something."""
    page.goto("/flow")
    expect(page.locator("#flow-rows tr")).to_have_count(12)
    page.get_by_role("button", name="Likeliest", exact=True).click()
    expect(page.locator("#flow-tokens li")).to_have_count(10)
    page.get_by_role("button", name="Likeliest", exact=True).click()
    expect(page.locator("#flow-tokens li")).to_have_count(11)
    page.get_by_role("button", name="back to the prompt").click()
    page.get_by_role("button", name="write ‹␣improve›").click()
    expect(page.locator("#flow-tokens li").last).to_contain_text("improve")
    page.get_by_label("Top-k").fill("6")
    expect(page.locator("#flow-rows .flow-fallen")).not_to_have_count(0)
    page.wait_for_load_state("networkidle")


def direct_chat(page: Page) -> None:
    """Two questions answered greedily, one of them with code, and an answer that was given twice."""
    page.goto("/chat")
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Max tokens").fill("200")
    page.get_by_role("button", name="Close settings").click()
    idle = page.locator("#chat:not([data-busy])")
    for n_messages, question in (
        (2, "Write a Python function that reverses the words of a sentence."),
        (4, "Give three tips for writing clear code, as a list."),
    ):
        page.get_by_label("Message", exact=True).fill(question)
        page.keyboard.press("Enter")
        expect(page.locator("#messages article")).to_have_count(n_messages)
        expect(idle).to_be_attached(timeout=60_000)
    page.get_by_role("button", name="Answer again").last.click()
    expect(page.locator("#messages .place").last).to_have_text("2/2")
    expect(idle).to_be_attached(timeout=60_000)


def runs(page: Page) -> None:
    """A run that is done."""
    page.goto("/runs/tiny/pretrain")
    page.wait_for_load_state("networkidle")


def benchmarks(page: Page) -> None:
    """A result with several metrics."""
    page.goto("/benchmarks?task=arc-challenge")
    page.get_by_role("link", name="arc-challenge of").first.click()
    page.wait_for_load_state("networkidle")


def battle(page: Page) -> None:
    """A battle of two local models, asked and voted for; of `camelid arena serve`."""
    page.goto("/battle")
    page.get_by_role("button", name="I understand").click()
    page.get_by_label("Question to both models").fill("Give three tips for writing clear code, as a list.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="A is better")).to_be_enabled(timeout=120_000)
    page.get_by_role("button", name="A is better").click()
    expect(page.locator("#reveal")).to_be_visible()


PICTURES: dict[str, tuple[int, int, Callable[[Page], None]]] = {
    "arena-battle": (1280, 900, battle),
    "arena-battle-dark": (1280, 900, battle),
    "direct-chat": (1280, 900, direct_chat),
    "flow": (1440, 1880, flow),
    "runs": (1280, 1120, runs),
    "benchmarks": (1280, 900, benchmarks),
}


def main() -> None:
    url = sys.argv[1]
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, (width, height, prepare) in PICTURES.items():
            if sys.argv[2:] and name not in sys.argv[2:]:
                continue
            size = {"width": width, "height": height}
            colours: Literal["light", "dark"] = "dark" if name.endswith("-dark") else "light"
            page = browser.new_page(base_url=url, viewport=size, color_scheme=colours, reduced_motion="reduce")
            prepare(page)
            page.mouse.move(0, 0)
            page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                HERE / f"{name}.png", optimize=True
            )
        browser.close()


if __name__ == "__main__":
    main()
