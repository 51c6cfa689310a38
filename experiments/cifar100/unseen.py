"""Classes never trained: four classes of each superclass train, the fifth is met at the test.

usage: python experiments/cifar100/unseen.py OUT --data TREE [options]

TREE is CIFAR-100 as folders, TREE/train|val/<superclass>/<class>/*.png. Seed s leaves out the
s-th class of every superclass (by name, counted round), so seeds differ in classes, too. Results
are OUT/NAME.json, one a run; what is there is not run again. --workers processes share the runs.

Measured in the backbone's features and in the embedding that the loss sees:
- among: unseen test images among each other, leave-one-out (20 classes, one a superclass);
- placement: unseen test images as queries, test images of the trained classes as gallery; a
  positive is of the same superclass;
- whole: all 10,000 test images among each other, leave-one-out, at both levels;
- outliers: class Gaussians of the trained classes, AUROC of other data against test images of
  the trained classes, and of the unseen classes against the same.
"""

from pathlib import Path

from runs import in_spaces, options, run_all, trained

METHODS = {
    "rince-out-in": {"objective": "rince"},
    "supcon-out": {"objective": "supcon-out"},
    "supcon-coarse": {"objective": "supcon-coarse"},
    "supcon-two-heads": {"objective": "supcon-two-heads"},
    "cross-entropy": {"objective": "cross-entropy"},
}


def main():
    parser = options(__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-100 as folders")
    parser.add_argument("--views", default="weak", help="weak or strong")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    shared = {
        name: getattr(arguments, name)
        for name in ("views", "backbone", "images", "batch", "precision")
    }
    settings = [
        {"method": method, "seed": seed, **shared}
        for seed in arguments.seeds
        for method in arguments.methods
    ]
    for seed in arguments.seeds:
        arrange(arguments.data, arguments.out, seed)
    run_all(settings, run, name_of, arguments)


def name_of(setting):
    return "{backbone}-{images}-{views}-{batch}-{precision}-{method}-{seed}".format(**setting)


def arrange(data, out, seed):
    """OUT/left-SEED/seen/train|val and unseen/, links to the class folders of the data."""
    root = out / f"left-{seed}"
    for split in ("train", "val"):
        for group in sorted((data / split).iterdir()):
            classes = sorted(group.iterdir())
            left_out = classes[seed % len(classes)]
            for folder in classes:
                if folder != left_out:
                    link = root / "seen" / split / group.name / folder.name
                elif split == "val":
                    link = root / "unseen" / group.name / folder.name
                else:
                    continue
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(folder.resolve(), target_is_directory=True)


def run(setting, arguments, outliers):
    root = arguments.out / f"left-{setting['seed']}"
    spaces, _, result = trained(
        setting,
        arguments,
        name_of(setting),
        str(root / "seen"),
        METHODS[setting["method"]]["objective"],
        40_000,
        setting["views"],
    )
    from rince.data.image.files import FileImages

    folders = {"train": "seen/train", "seen": "seen/val", "unseen": "unseen"}
    items = {
        side: FileImages.from_folder(root / path).preload(32) for side, path in folders.items()
    }
    return {"metrics": in_spaces(spaces, items, outliers, arguments.device), **result}


if __name__ == "__main__":
    main()
