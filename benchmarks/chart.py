"""Draw the newest rows of a comparison as an SVG: bars of camelid's and llama.cpp's speed, with the ratio.

python benchmarks/chart.py benchmarks/results/compare.jsonl docs/pictures/speed.svg
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path

TITLES = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M Q4_1",
    "default.gguf": "SmolLM2-135M Q4_1",
    "smol-Q4_0.gguf": "SmolLM2-135M shape Q4_0",
    "smol-Q8_0.gguf": "SmolLM2-135M shape Q8_0",
    "tiny-Q4_0.gguf": "TinyLlama-1.1B shape Q4_0",
    "tiny-Q4_K_M.gguf": "TinyLlama-1.1B shape Q4_K_M",
    "tiny-Q6_K.gguf": "TinyLlama-1.1B shape Q6_K",
    "tiny-Q8_0.gguf": "TinyLlama-1.1B shape Q8_0",
    "tiny-F16.gguf": "TinyLlama-1.1B shape F16",
    "l7b-Q4_0.gguf": "Llama-2-7B shape Q4_0",
}
PANELS = (
    ("prefill", 512, "reading 512 tokens"),
    ("decode", 0, "writing"),
    ("decode", 1024, "writing after 1024 tokens"),
)
ROW, BAR, LEFT, WIDTH, GAP = 34, 11, 190, 200, 40
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .head { font-weight: 600 } .small { font-size: 11px }
.ours { fill: #0b6e5f } .theirs { fill: #b8b2a6 } .ratio { font-weight: 600; fill: #0b6e5f }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .theirs { fill: #6b675f } .ours, .ratio { fill: #3fbfa8 } }
"""


def newest(path: Path) -> dict[tuple[str, str, int], dict[str, float]]:
    """(title, test, size) → both medians; later lines stand for earlier ones."""
    medians: dict[tuple[str, str, int], dict[str, float]] = {}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["model"] in TITLES and row["activation_bits"] == 8 and "llama.cpp" in row:
            key = (TITLES[row["model"]], row["test"], row["size"])
            medians[key] = {name: row[name]["median"] for name in ("camelid", "llama.cpp")} | {"ratio": row["ratio"]}
    return medians


def draw(rows: dict[tuple[str, str, int], dict[str, float]]) -> str:
    """A panel a test, a pair of bars a model; each pair is scaled to its larger bar, since models differ by far."""
    titles = [title for title in dict.fromkeys(TITLES.values()) if any(key[0] == title for key in rows)]
    width = LEFT + len(PANELS) * (WIDTH + GAP)
    height = 56 + ROW * len(titles) + 24
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" width="{width}">']
    parts.append(f"<title>Tokens a second of camelid and llama.cpp</title><style>{STYLE}</style>")
    for column, (test, size, name) in enumerate(PANELS):
        x = LEFT + column * (WIDTH + GAP)
        parts.append(f'<text class="head" x="{x}" y="20">{name}</text>')
        for line, title in enumerate(titles):
            y = 40 + line * ROW
            if not column:
                parts.append(f'<text x="0" y="{y + BAR + 3}">{escape(title)}</text>')
            if (title, test, size) in rows:
                parts += pair(x, y, rows[title, test, size])
    y = height - 12
    parts.append(f'<rect class="ours" x="{LEFT}" y="{y - 9}" width="10" height="10"/>')
    parts.append(f'<text class="small" x="{LEFT + 15}" y="{y}">camelid</text>')
    parts.append(f'<rect class="theirs" x="{LEFT + 80}" y="{y - 9}" width="10" height="10"/>')
    parts.append(f'<text class="small" x="{LEFT + 95}" y="{y}">llama.cpp; tokens a second, and the ratio</text>')
    return "\n".join([*parts, "</svg>\n"])


def pair(x: int, y: int, row: dict[str, float]) -> list[str]:
    """Two bars with their figures."""
    most, parts = max(row["camelid"], row["llama.cpp"]), []
    for place, (style, name) in enumerate((("ours", "camelid"), ("theirs", "llama.cpp"))):
        top, length = y + place * (BAR + 2), round((WIDTH - 90) * row[name] / most)
        ratio = f'<tspan class="ratio" dx="6">{row["ratio"]:.1f} ×</tspan>' if not place else ""
        parts.append(f'<rect class="{style}" x="{x}" y="{top}" width="{length}" height="{BAR}"/>')
        parts.append(f'<text class="small" x="{x + length + 5}" y="{top + BAR - 1}">{row[name]:,.0f}{ratio}</text>')
    return parts


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(newest(Path(sys.argv[1]))), "utf-8")
