"""Newsgroups never trained: one group of each coarse group is met at the test alone.

usage: python experiments/text/unseen.py OUT --data DATA/newsgroups20 [options]

The six coarse groups of more than one group lose one each: seed s leaves out the s-th (by name,
counted round), so seeds differ in classes, too. What is measured, the options and the results
(OUT/NAME.json, one a run; what is there is not run again) are those of
experiments/cifar100/unseen.py; "images" are posts here, and outliers tables with a column "text",
NAME=FILE. Of a post the first 64 tokens count. Two layers of all-MiniLM-L6-v2 are trained, or with
--stored a head alone, on features that the whole model makes once (OUT/posts.npz).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cifar100"))

from newsgroups import posts
from runs import in_spaces, options, run_all, trained

METHODS = {
    "rince-out-in": "rince",
    "supcon-out": "supcon-out",
    "supcon-coarse": "supcon-coarse",
    "supcon-two-heads": "supcon-two-heads",
    "cross-entropy": "cross-entropy",
    "untrained": None,  # the stored features as they are
}
TOKENS, LAYERS = 64, 2


def main():
    parser = options(__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of newsgroups20.parquet")
    parser.add_argument("--lr", type=float, default=5e-4, help="of AdamW")
    parser.add_argument("--stored", action="store_true", help="heads on features made once")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.set_defaults(backbone="all-MiniLM-L6-v2", images=16_000, batch=64)
    arguments = parser.parse_args()
    names = ("backbone", "images", "batch", "precision", "lr")
    shared = {name: getattr(arguments, name) for name in names}
    settings = [
        {"method": method, "seed": seed, **shared}
        for seed in arguments.seeds
        for method in arguments.methods
    ]
    if not arguments.stored:
        settings = [setting for setting in settings if METHODS[setting["method"]]]
    frame = posts(arguments.data).reset_index(drop=True)
    frame["post"] = frame.index.astype(str)  # numbers of posts occur twice
    if arguments.stored:
        for setting in settings:
            setting["backbone"] = "mlp"
        store(frame, arguments.out / "posts.npz")
    for seed in arguments.seeds:
        arrange(frame, arguments.out, seed)
    run_all(settings, run, name_of, arguments, texts_of)


def name_of(setting):
    return "{backbone}-{images}-{batch}-{lr:g}-{precision}-{method}-{seed}".format(**setting)


def store(frame, file):
    """The features of all posts."""
    import numpy as np
    from common import encode, plain_model

    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        model = plain_model()
        model.max_seq_length = TOKENS
        features = encode(model, list(frame["text"])).numpy()
        np.savez(file, embeddings=features, paths=frame["post"].to_numpy(str))


def arrange(frame, out, seed):
    """OUT/left-SEED/seen.csv, with splits, and unseen.csv: test posts of the groups left out."""
    folder = out / f"left-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    groups = frame.groupby("coarse")["group"].unique().map(sorted)
    left_out = {names[seed % len(names)] for names in groups if len(names) > 1}
    unseen = frame["group"].isin(left_out)
    sides = {"seen": ~unseen, "unseen": unseen & (frame["split"] == "test")}
    for name, rows in sides.items():
        of_side = frame.loc[rows, ["post", "text", "coarse", "group", "split"]]
        of_side.to_csv(folder / f"{name}.csv", index=False)


def texts_of(file):
    """A table of other texts, tokenised when it is known by which model."""
    from rince.data.text.rows import read_texts

    return read_texts(file)


def run(setting, arguments, outliers):
    if arguments.stored:
        splits, unseen = stored(setting, arguments)
        given, others = {"splits": splits}, {}
    else:
        splits, unseen, given, others = texts(setting, arguments, outliers)
    items = {"train": splits.train, "seen": splits.test, "unseen": unseen}
    if METHODS[setting["method"]] is None:
        from torch import nn

        spaces = {"features": nn.Identity()}
        return {"metrics": in_spaces(spaces, items, others, arguments.device), "train_seconds": 0.0}
    spaces, _, result = trained(
        setting,
        arguments,
        name_of(setting),
        str(arguments.out / f"left-{setting['seed']}" / "seen.csv"),
        METHODS[setting["method"]],
        len(splits.train),
        "strong",
        optim={"optimizer": "adamw", "lr": setting["lr"]},
        **given,
    )
    return {"metrics": in_spaces(spaces, items, others, arguments.device), **result}


def texts(setting, arguments, outliers):
    from rince.data import from_texts
    from rince.data.kind import Request
    from rince.data.text.sources import load_test_texts, load_texts
    from rince.training import TextOptions, TrainConfig

    folder = arguments.out / f"left-{setting['seed']}"
    text = TextOptions(labels=("coarse", "group"), layers=LAYERS, max_tokens=TOKENS)
    options = TrainConfig(data="", text=text)
    requests = [
        Request(str(folder / name), options, backbone=setting["backbone"])
        for name in ("seen.csv", "unseen.csv")
    ]
    tokens = {"backbone": setting["backbone"], "max_tokens": TOKENS}
    others = {n: from_texts(x, [0] * len(x), **tokens) for n, x in outliers.items()}
    return load_texts(requests[0]), load_test_texts(requests[1]), {"text": text}, others


def stored(setting, arguments):
    """Splits of the groups that are trained, and the test posts of the others, as features."""
    import numpy as np
    import pandas

    from rince.data import Splits, from_vectors

    file = np.load(arguments.out / "posts.npz")
    place = {name: i for i, name in enumerate(file["paths"])}
    tables = {
        name: pandas.read_csv(arguments.out / f"left-{setting['seed']}" / f"{name}.csv", dtype=str)
        for name in ("seen", "unseen")
    }

    def of(table, taxonomy=None):
        rows = [place[name] for name in table["post"]]
        labels = table[["coarse", "group"]].to_numpy()
        return from_vectors(file["embeddings"][rows], labels, taxonomy=taxonomy)

    seen, unseen = tables["seen"], tables["unseen"]
    train = of(seen[seen["split"] == "train"])
    return Splits(train, of(seen[seen["split"] != "train"], train.taxonomy)), of(unseen)


if __name__ == "__main__":
    main()
