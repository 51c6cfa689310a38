"""The nouns of WordNet: senses of a name, and how far two senses are apart.

Reads WordNet's own database files, whose format is described in its manual page wndb(5WN).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import RinceError
from rince.core.files import user_path
from rince.core.tables import read_lines

# Where WordNet itself says that it is, Debian's wordnet-base, and WordNet's own installer.
PLACES = ("$WNSEARCHDIR", "/usr/share/wordnet", "/usr/local/WordNet-3.0/dict")
# Noun rules of WordNet's morphological processing, morphy(7WN).
ENDINGS = (
    *(("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y"), ("s", "")),
)
_MOST_FORMS = 1000  # of a name of several words
FAR = 10_000  # more than any path; small enough to add two


class WordNetNouns:
    """The noun files of a WordNet database.

    A sense (synset) is the number of the byte where it begins in ``data.noun``: the digits of an
    ImageNet id such as n02123045, which are of WordNet 3.0. ``folder``: holds ``index.noun``,
    ``data.noun`` and perhaps ``noun.exc``; None looks in :data:`PLACES`.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        places = [os.path.expandvars(place) for place in PLACES] if folder is None else [folder]
        for place in map(user_path, places):
            if (place / "index.noun").is_file() and (place / "data.noun").is_file():
                self.folder = place
                return
        raise RinceError(
            f"WordNet's files index.noun and data.noun are not in "
            f"{', '.join(map(str, PLACES if folder is None else places))}: install them "
            f"(apt-get install wordnet-base), or name the folder in the variable WNSEARCHDIR"
        )

    def senses(self, name: str) -> list[int]:
        """Senses of a noun, the most frequent first; none if WordNet does not know it.

        Upper and lower case are the same, a blank, a hyphen and an underscore are, and a plural
        finds its singular: by ``noun.exc`` if it is irregular, each word of several too.
        """
        whole = "_".join(name.lower().split())
        parts = re.split("([-_])", whole)
        many = itertools.product(*map(self._singulars, parts)) if len(parts) > 1 else ()
        words = [*self._singulars(whole), *map("".join, itertools.islice(many, _MOST_FORMS))]
        forms = (form for word in words for form in (word, _joined(word)))
        return next((self._index[form] for form in forms if form in self._index), [])

    def _singulars(self, word: str) -> list[str]:
        """A word itself, and what it may be the plural of."""
        rules = () if word.endswith("ss") else ENDINGS
        regular = [word[: -len(end)] + new for end, new in rules if word.endswith(end)]
        return [word, *self._irregular.get(word, ()), *regular]

    def exists(self, sense: int) -> bool:
        """Whether a sense begins at this byte."""
        return self._entry(sense) is not None

    def distances(self, senses: Sequence[int]) -> Tensor:
        """(N, N) int32: edges of the shortest path between two senses by way of a common ancestor.

        Edges lead from a sense to its hypernyms and from an instance to its class. ``FAR`` or more:
        no common ancestor.
        """
        above = [self._ancestors(sense) for sense in senses]
        everything = sorted({ancestor for ancestors in above for ancestor in ancestors})
        column = {ancestor: i for i, ancestor in enumerate(everything)}
        depth = torch.full((len(senses), max(1, len(column))), FAR, dtype=torch.int32)
        for row, edges in zip(depth, above, strict=True):
            row[[column[a] for a in edges]] = torch.tensor(list(edges.values()), dtype=torch.int32)
        if not len(senses):
            return depth[:, :0]
        return torch.stack([(row + depth).amin(dim=1) for row in depth])  # (N, N)

    def _ancestors(self, sense: int) -> dict[int, int]:
        """Every ancestor, the sense itself included, and how many edges it is above."""
        edges, front, steps = {sense: 0}, [sense], 0
        while front:
            steps += 1
            parents = {p for s in front for p in self._parents(s)} - edges.keys()
            edges |= dict.fromkeys(parents, steps)
            front = list(parents)
        return edges

    def _parents(self, sense: int) -> list[int]:
        fields = self._entry(sense)
        if fields is None:
            raise RinceError(f"{self.folder / 'data.noun'} is damaged: no sense at byte {sense}")
        # offset, file, type, number of words (hexadecimal), a (word, id) each, number of pointers,
        # a (symbol, offset, part of speech, source/target) each
        at = 4 + 2 * int(fields[3], 16)
        pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
        return [int(offset) for symbol, offset, _, _ in pointers if symbol in ("@", "@i")]

    def _entry(self, sense: int) -> list[str] | None:
        if sense not in self._entries:
            with (self.folder / "data.noun").open("rb") as stream:
                stream.seek(sense)
                line = stream.readline().decode("utf-8", errors="replace")
            right = line.startswith(f"{sense:08d} ")
            self._entries[sense] = line.partition(" | ")[0].split() if right else None
        return self._entries[sense]

    @cached_property
    def _entries(self) -> dict[int, list[str] | None]:
        return {}

    @cached_property
    def _index(self) -> dict[str, list[int]]:
        """Noun, in lower case with underscores -> its senses; and as it is written in one."""
        senses: dict[str, list[int]] = {}
        joined: dict[str, list[int]] = {}
        with (self.folder / "index.noun").open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith(" "):  # the licence
                    continue
                # noun, n, number of senses, ..., and the offsets of the senses at the end
                fields = line.split()
                senses[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
                joined.setdefault(_joined(fields[0]), senses[fields[0]])
        return joined | senses

    @cached_property
    def _irregular(self) -> dict[str, list[str]]:
        """Plural -> its singulars, from ``noun.exc``, which small databases lack."""
        file = self.folder / "noun.exc"
        lines = read_lines(file, "irregular plurals") if file.is_file() else []
        return {plural: singulars for plural, *singulars in (line.split() for _, line in lines)}


def _joined(word: str) -> str:
    """Without the characters in which spellings of one noun differ."""
    return re.sub(r"[-_.]", "", word)
