"""Duplicates: against plain Python over all documents at once, datasketch, and the curve that bands promise."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.dedup import paragraph
from camelid.data.dedup.apply import Deduplication
from camelid.data.dedup.cluster import cluster_duplicates, memory_bound
from camelid.data.dedup.external_sort import KEYED_ROW, find_duplicates, keyed_rows
from camelid.data.dedup.minhash import MinHash, unite
from camelid.data.dedup.options import DedupOptions
from camelid.data.dedup.signatures import Signer
from camelid.data.dedup.url import normal_url
from camelid.data.document import Document
from camelid.data.word_hashes import Words
from camelid.errors import FormatError, MissingError

NOTHING = DedupOptions(url=False, exact=False, minhash=False, paragraph=False)


def deduplicate(
    folder: Path, units: Sequence[Sequence[Document]], options: DedupOptions, memory: int = 2**20, order=None
) -> list[Document]:
    """All stages over units of documents; units are signed and applied in any `order`."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = order or range(len(units))
    files = [folder / f"{number}.npz" for number in range(len(units))]
    for number in numbers:
        signer = Signer(options)
        for document in units[number]:
            signer.add(document, Words(document.text))
        signer.save(files[number])
    cluster_duplicates(files, options, folder / "decisions", memory)
    kept = {}
    for number in numbers:
        kept[number] = list(Deduplication(folder / "decisions", number, options).apply(units[number]))
    return [document for number in sorted(kept) for document in kept[number]]


def documents(texts: Sequence[str], urls: Sequence[str | None] | None = None) -> list[Document]:
    urls = urls or [None] * len(texts)
    return [Document(text, f"d{number}", "s", url) for number, (text, url) in enumerate(zip(texts, urls, strict=True))]


def cut(items: Sequence[Document], places: Sequence[int]) -> list[list[Document]]:
    ends = [0, *sorted(place % (len(items) + 1) for place in places), len(items)]
    return [list(items[start:stop]) for start, stop in itertools.pairwise(ends)]


KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(keys=KEYS, memory=st.integers(500, 9000), blocks=st.integers(1, 5))
def test_repeats_are_those_of_a_dictionary(tmp_path_factory, keys, memory, blocks):
    """Keys of few values in both halves, so that halves agree where keys do not; (0, 0) equals nothing."""
    spread = [(high << 62, low) for high, low in keys]
    made = keyed_rows(np.array(spread, np.uint64).reshape(-1, 2), np.arange(len(keys)))
    found = {}
    for again, first in find_duplicates(np.array_split(made, blocks), len(keys), tmp_path_factory.mktemp("r"), memory):
        found |= dict(zip(again.tolist(), first.tolist(), strict=True))
    seen: dict[tuple[int, int], int] = {}
    expected = {}
    for number, key in enumerate(spread):
        if key != (0, 0) and seen.setdefault(key, number) != number:
            expected[number] = seen[key]
    assert found == expected


def test_repeats_leave_no_parts_behind(tmp_path):
    made = keyed_rows(np.arange(1, 2001, dtype=np.uint64), np.arange(2000))
    pairs = list(find_duplicates([made, made], 4000, tmp_path, 1000 * KEYED_ROW.itemsize))
    assert sum(len(again) for again, _ in pairs) == 2000
    assert not list(tmp_path.iterdir())


TEXTS = st.lists(st.sampled_from(["a", "b", " a", "a\n", "A", "c d", "é", ""]), max_size=25)
PLACES = st.lists(st.integers(0, 100), max_size=4)


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, places=PLACES, memory=st.integers(300, 4000), data=st.data())
def test_urls_and_texts_are_those_of_a_set(tmp_path_factory, texts, places, memory, data):
    urls = data.draw(st.lists(st.sampled_from([None, "http://x/1", "https://x/1#top", "http://x/2"]), min_size=25))
    all_of_them = documents(texts, urls[: len(texts)])
    units = cut(all_of_them, places)
    order = data.draw(st.permutations(range(len(units))))
    options = NOTHING.with_(url=True, exact=True)
    kept = deduplicate(tmp_path_factory.mktemp("d"), units, options, memory, order)
    seen_urls, seen_texts, expected = set(), set(), []
    for document in all_of_them:
        url = document.url and document.url.split("//")[1].removesuffix("#top")
        if url and url in seen_urls:
            continue  # and its text is no first for others
        seen_urls.add(url)
        text = document.text.strip()
        if text and text in seen_texts:
            continue
        seen_texts.add(text)
        expected.append(document)
    assert kept == expected


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(["a b c", "a b", " x y z", "x y z", "", "—"]), max_size=5), max_size=12),
    places=PLACES,
    memory=st.integers(300, 4000),
)
def test_paragraphs_are_those_of_a_set(tmp_path_factory, texts, places, memory):
    all_of_them = documents(["\n".join(lines) for lines in texts])
    options = NOTHING.with_(paragraph=True, paragraph_words=3)
    kept = deduplicate(tmp_path_factory.mktemp("d"), cut(all_of_them, places), options, memory)
    seen, expected = set(), []
    for document in all_of_them:
        lines, changed = [], False
        for line in document.text.splitlines(keepends=True):
            key = line.strip()
            if len(key.split()) >= 3 and key in seen:
                changed = True
                continue
            seen.add(key)
            lines.append(line)
        text = "".join(lines)
        if not changed or any(map(str.isalnum, text)):
            expected.append(text)
    assert [document.text for document in kept] == expected


def test_accounts_of_stages_add_up(tmp_path):
    long = "one two three four five six seven eight nine ten eleven twelve"
    texts = ["a", "b", "a", f"{long}\nfirst", f"{long}\nsecond and more", long, long]
    given_ = documents(texts, ["http://x/1", "http://x/1", None, None, None, None, None])
    options = NOTHING.with_(url=True, exact=True, paragraph=True)
    (tmp_path / "d").mkdir()
    signer = Signer(options)
    for document in given_:
        signer.add(document, Words(document.text))
    signer.save(tmp_path / "0.npz")
    decisions = Deduplication(cluster_duplicates([tmp_path / "0.npz"], options, tmp_path / "d"), 0, options)
    kept = list(decisions.apply(given_))
    assert [document.text for document in kept] == ["a", f"{long}\nfirst", "second and more"]
    url, exact, paragraphs = decisions.stage_stats.values()
    assert (url.documents_in, url.documents_out, url.dropped) == (7, 6, {"URL seen before": 1})
    assert (exact.documents_in, exact.documents_out, exact.dropped) == (6, 4, {"text seen before": 2})
    assert (paragraphs.documents_in, paragraphs.documents_out) == (4, 3)
    assert paragraphs.dropped == {"all paragraphs seen before": 1}
    assert paragraphs.changed == {"paragraphs removed": 1}
    assert exact.examples["text seen before"][0]["id"] == "d2"
    assert paragraphs.bytes_out == sum(len(document.text) for document in kept)


@settings(max_examples=60, deadline=None)
@given(edges=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60), cuts=st.integers(1, 4))
def test_groups_are_those_of_a_plain_union(edges, cuts):
    parents = np.arange(31)
    for some in np.array_split(np.array(edges, np.int64).reshape(-1, 2), cuts):
        unite(parents, some[:, 0].copy(), some[:, 1].copy())
    groups = [{number} for number in range(31)]
    for one, other in edges:
        joined = groups[one] | groups[other]
        for member in joined:
            groups[member] = joined
    expected = [min(group) for group in groups]
    roots = parents
    while not np.array_equal(roots, parents[roots]):
        roots = parents[roots]
    assert roots.tolist() == expected
    assert ((parents != np.arange(31)) == (np.array(expected) != np.arange(31))).all()


def pair(similarity: float, draw: random.Random, size: int = 300) -> tuple[str, str]:
    """Two texts whose sets of words have this Jaccard similarity, rounded to whole words."""
    shared = round(2 * size * similarity / (1 + similarity))
    words = [f"w{number}" for number in draw.sample(range(10**9), 2 * size - shared)]
    one, other = words[:size], words[size - shared :]
    assert abs(len({*one} & {*other}) / len({*one} | {*other}) - similarity) < 0.004
    draw.shuffle(other)
    return " ".join(one), " ".join(other)


SINGLE = DedupOptions(words=1)


@pytest.mark.slow
@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.75, 0.8, 0.9])
def test_pairs_are_found_as_often_as_the_curve_says(similarity):
    """600 pairs a point; the tolerance is four standard deviations of a binomial."""
    draw, minhash, n = random.Random(int(100 * similarity)), MinHash(SINGLE), 600
    signatures = [minhash.signature(Words(text)) for _ in range(n) for text in pair(similarity, draw)]
    bands = minhash.bands(signatures)
    found = (bands[:, 0::2] == bands[:, 1::2]).any(axis=0).mean()
    chance = SINGLE.chance(similarity)
    assert abs(found - chance) < 4 * (chance * (1 - chance) / n) ** 0.5 + 0.01


def test_estimates_are_as_good_as_datasketchs():
    datasketch = pytest.importorskip("datasketch")
    draw, minhash = random.Random(1), MinHash(SINGLE)
    mine, theirs, true = [], [], []
    for similarity in np.linspace(0.1, 0.95, 60):
        one, other = pair(float(similarity), draw)
        mine.append((minhash.signature(Words(one)) == minhash.signature(Words(other))).mean())
        hashed = [datasketch.MinHash(112) for _ in "ab"]
        for sketch, text in zip(hashed, (one, other), strict=True):
            sketch.update_batch([word.encode() for word in text.split()])
        theirs.append(hashed[0].jaccard(hashed[1]))
        true.append(similarity)
    spread = [float(np.sqrt(np.mean((np.array(some) - true) ** 2))) for some in (mine, theirs)]
    expected = float(np.sqrt(np.mean([s * (1 - s) / 112 for s in true])))
    assert spread[0] < 1.3 * expected
    assert spread[0] < 1.4 * spread[1]


def near(text: str, draw: random.Random, share: float) -> str:
    return " ".join(word if draw.random() > share else f"x{draw.random()}" for word in text.split())


def texts_with_near_ones(count: int, seed: int, share: float = 0.02) -> list[str]:
    draw = random.Random(seed)
    texts = [" ".join(f"w{draw.randrange(3000)}" for _ in range(120)) for _ in range(count)]
    texts += [near(draw.choice(texts), draw, share) for _ in range(count // 2)]
    draw.shuffle(texts)
    return texts


def test_candidates_are_those_of_datasketchs_lsh():
    """Its index over our signatures, with as many bands and rows, gives the same pairs."""
    datasketch = pytest.importorskip("datasketch")
    options = DedupOptions(words=2)
    minhash = MinHash(options)
    texts = texts_with_near_ones(120, 7, share=0.05)
    signatures = [minhash.signature(Words(text)) for text in texts]
    index = datasketch.MinHashLSH(num_perm=112, params=(14, 8))
    kind = {"scheme": "affine32"} if hasattr(datasketch.MinHash(112), "scheme") else {}
    sketches = [datasketch.MinHash(112, hashvalues=signature.astype(np.uint64), **kind) for signature in signatures]
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    theirs = {(number, other) for number, sketch in enumerate(sketches) for other in index.query(sketch)}
    bands = minhash.bands(signatures)
    agree = (bands[:, :, None] == bands[:, None, :]).any(axis=0)
    assert {(int(one), int(other)) for one, other in zip(*np.nonzero(agree), strict=True)} == theirs
    assert len(theirs) > len(texts) + 20


@pytest.mark.parametrize("memory", [1000, 2**22])
def test_near_documents_are_dropped_whatever_the_units_and_the_memory(tmp_path, memory):
    all_of_them = documents(texts_with_near_ones(60, 3, share=0.01))
    options = NOTHING.with_(minhash=True)
    expected = deduplicate(tmp_path / "one", [all_of_them], options)
    assert 55 < len(expected) < 75
    for number, places in enumerate([[30], [1, 2, 80], [90, 90, 10, 45]]):
        units = cut(all_of_them, places)
        order = list(reversed(range(len(units))))
        kept = deduplicate(tmp_path / f"{number}", units, options, memory, order)
        assert kept == expected


def test_the_first_of_a_chain_stays(tmp_path):
    """a ~ b ~ c, a and c less alike: one group."""
    draw = random.Random(2)
    words = [f"w{draw.randrange(10**6)}" for _ in range(400)]
    chain = []
    for number in range(6):
        words[number * 12 : number * 12 + 12] = [f"y{draw.random()}" for _ in range(12)]
        chain.append(" ".join(words))
    options = NOTHING.with_(minhash=True, rows=4)
    kept = deduplicate(tmp_path, [documents(chain[:2]), documents(chain[2:])], options)
    assert [document.text for document in kept] == chain[:1]


def test_short_documents_are_never_near(tmp_path):
    kept = deduplicate(tmp_path, [documents(["one two three", "one two three", ""])], NOTHING.with_(minhash=True))
    assert len(kept) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://Example.org/a", "https://example.org/a/"),
        ("https://example.org:443/a#b", "https://example.org/a"),
        ("http://example.org:80", "http://example.org/"),
        (" http://example.org/a?q=1 ", "http://example.org/a?q=1#x"),
    ],
)
def test_urls_that_are_the_same(one, other):
    assert normal_url(one) == normal_url(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://example.org/a", "http://example.org/A"),
        ("http://example.org/a?q=1", "http://example.org/a?q=2"),
        ("http://example.org:8080/", "http://example.org/"),
        ("http://www.example.org/", "http://example.org/"),
    ],
)
def test_urls_that_are_not(one, other):
    assert normal_url(one) != normal_url(other)


def test_what_is_no_url_is_compared_as_it_is(tmp_path):
    given_ = documents(["a", "b", "c"], ["http://[", "http://[", ""])
    kept = deduplicate(tmp_path, [given_], NOTHING.with_(url=True))
    assert [document.text for document in kept] == ["a", "c"]


def test_other_documents_than_those_compared_are_refused(tmp_path):
    options = NOTHING.with_(exact=True)
    deduplicate(tmp_path, [documents(["a", "b"])], options)
    for texts in (["a"], ["a", "b", "c"]):
        with pytest.raises(FormatError, match="were compared"):
            list(Deduplication(tmp_path / "decisions", 0, options).apply(documents(texts)))
    with pytest.raises(MissingError, match="no decisions"):
        Deduplication(tmp_path, 0, options)


def test_signatures_that_are_damaged_are_refused(tmp_path):
    with pytest.raises(MissingError, match="prepare again"):
        cluster_duplicates([tmp_path / "0.npz"], NOTHING, tmp_path / "d")
    (tmp_path / "0.npz").write_bytes(b"PK nothing")
    with pytest.raises(FormatError, match="prepare again"):
        cluster_duplicates([tmp_path / "0.npz"], NOTHING, tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["0.npz"]


def test_paragraph_keys_leave_short_lines():
    assert paragraph.keys("a b c\n\n  a b c d \nx", 3) == [b"a b c", b"a b c d"]


def test_memory_is_bounded():
    options = DedupOptions()
    assert memory_bound(10**9, options, 2**29) == 2**29 + 9 * 10**9
    assert memory_bound(1000, options) < 200_000
