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

from common import options, run_all, trained

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
    metrics = {}
    for space, network in spaces.items():
        measured = evaluate(network, root, outliers, arguments.device)
        metrics |= {f"{space}/{name}": value for name, value in measured.items()}
    return {"metrics": metrics, **result}


def evaluate(network, root, outliers, device):
    import torch

    from rince.data.batches import eval_batches
    from rince.data.image.files import FileImages
    from rince.evaluation.features import extract_features
    from rince.metrics import ClassGaussians, auroc, hierarchical_retrieval

    def features_of(images):
        return extract_features(network, eval_batches(images, 512), device).features

    folders = {"train": "seen/train", "seen": "seen/val", "unseen": "unseen"}
    images = {
        side: FileImages.from_folder(root / path).preload(32) for side, path in folders.items()
    }
    features = {side: features_of(x) for side, x in images.items()}
    names = {side: x.taxonomy.paths for side, x in images.items()}
    groups = sorted({path[0] for path in names["seen"]})
    classes = sorted({path for side in ("seen", "unseen") for path in names[side]})
    levels = {}
    for side in ("seen", "unseen"):
        of_class = torch.tensor(
            [[classes.index(path), groups.index(path[0])] for path in names[side]]
        )
        levels[side] = of_class[images[side].labels]

    def summary(name, result, wanted):
        values = {}
        for level in wanted:
            one = result.levels[("fine", "coarse").index(level)]
            values[f"{name}/{level}/R@1"] = one.recall[1]
            values[f"{name}/{level}/mAP"] = one.mean_average_precision
        if len(wanted) > 1:
            values |= {
                f"{name}/H-AP": result.h_ap,
                f"{name}/ASI": result.asi,
                f"{name}/NDCG": result.ndcg,
                f"{name}/severity": result.mistake_severity,
            }
        return values

    x, y = features["unseen"], levels["unseen"]
    among = hierarchical_retrieval(x, x, y, y, ks=(1,), exclude_self=True)
    metrics = summary("among", among, ["fine"])
    placed = hierarchical_retrieval(x, features["seen"], y, levels["seen"], ks=(1,))
    metrics |= summary("placement", placed, ["coarse"])
    x = torch.cat([features["seen"], features["unseen"]])
    y = torch.cat([levels["seen"], levels["unseen"]])
    whole = hierarchical_retrieval(x, x, y, y, ks=(1,), exclude_self=True)
    metrics |= summary("whole", whole, ["fine", "coarse"])
    unseen = hierarchical_retrieval(
        features["unseen"],
        torch.cat([features["unseen"], features["seen"]]),
        levels["unseen"],
        torch.cat([levels["unseen"], levels["seen"]]),
        ks=(1,),
        exclude_self=True,
    )
    metrics |= summary("unseen-in-whole", unseen, ["fine", "coarse"])
    gaussians = ClassGaussians.fit(features["train"], images["train"].labels)
    inliers = gaussians.score(features["seen"])
    others = {name: features_of(other) for name, other in outliers.items()}
    for name, other in (others | {"unseen": features["unseen"]}).items():
        metrics[f"outliers/{name}"] = auroc(inliers, gaussians.score(other))
    return metrics


if __name__ == "__main__":
    main()
