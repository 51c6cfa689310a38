"""WordNet's noun synsets as a table of texts: the glosses, and the hypernyms above each.

    apt-get install -y wordnet-base
    python scripts/wordnet_table.py -o nouns.csv                  # 82,115 classes, up to 19 levels
    python scripts/wordnet_table.py -o few.csv --levels 6 --per-class 12

A synset is called by its first word, with its number where its parent has another of that name, or
the name itself. Of several hypernyms the first counts. A synset with others below it is a class
inside its own group (``bird / bird``). ``--levels`` cuts the paths: a class is then all that lies
below, and synsets that are less deep are left out. Reads wndb(5WN).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter, defaultdict
from pathlib import Path


def synsets(file: Path) -> dict[str, tuple[str, str | None, str]]:
    """Number -> first word, number of the first hypernym, gloss."""
    read = {}
    for line in file.read_text(encoding="utf-8").split("\n"):
        if not line or line.startswith(" "):  # the licence
            continue
        entry, _, gloss = line.partition(" | ")
        fields = entry.split()
        at = 4 + 2 * int(fields[3], 16)
        pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
        above = [offset for symbol, offset, _, _ in pointers if symbol in ("@", "@i")]
        read[fields[0]] = (fields[4], above[0] if above else None, gloss.strip())
    return read


def paths(nouns: dict[str, tuple[str, str | None, str]]) -> dict[str, tuple[str, ...]]:
    """Number -> names from the top down."""
    siblings = Counter((above, word) for word, above, _ in nouns.values())
    words = {number: word for number, (word, _, _) in nouns.items()}
    names = {
        number: word
        if siblings[above, word] == 1 and word != words.get(above)
        else f"{word} {number}"
        for number, (word, above, _) in nouns.items()
    }
    groups = {above for _, above, _ in nouns.values()}
    found = {}
    for number in nouns:
        chain, at = [names[number]], nouns[number][1]
        while at is not None:
            chain.append(names[at])
            at = nouns[at][1]
        path = tuple(reversed(chain))
        found[number] = (*path, path[-1]) if number in groups else path
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet/data.noun"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--levels", type=int, help="cut the paths after so many names")
    parser.add_argument(
        "--per-class", type=int, help="keep classes of at least so many, and so many"
    )
    given = parser.parse_args()
    if not given.wordnet.is_file():
        sys.exit(f"there is no {given.wordnet}: apt-get install wordnet-base")
    nouns = synsets(given.wordnet)
    rows = [(path, nouns[number][2]) for number, path in paths(nouns).items()]
    if given.levels:
        rows = [(p[: given.levels], gloss) for p, gloss in rows if len(p) >= given.levels]
    if given.per_class:
        of_class = defaultdict(list)
        for path, gloss in rows:
            of_class[path].append(gloss)
        kept = {p: g[: given.per_class] for p, g in of_class.items() if len(g) >= given.per_class}
        rows = [(path, gloss) for path, glosses in kept.items() for gloss in glosses]
    depth = max(len(path) for path, _ in rows)
    levels = [f"level_{i}" for i in range(1, depth)]
    with given.output.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["text", *levels, "class"])
        for path, gloss in rows:
            table.writerow([gloss, *path[:-1], *[""] * (depth - len(path)), path[-1]])
    classes = len({path for path, _ in rows})
    print(f"{given.output}: {len(rows)} texts of {classes} classes in {depth} levels")


if __name__ == "__main__":
    main()
