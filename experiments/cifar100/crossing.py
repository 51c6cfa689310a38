"""What decides fine accuracy? Labels a class, views, method: trained and evaluated, one run each.

usage: python experiments/cifar100/crossing.py OUT --root CIFAR [options]

CIFAR holds cifar-100-python/ (torchvision's files). Every setting sees the same number of images
(--images). Results are OUT/NAME.json, one a run; what is there is not run again, so the study can
be broken off and gone on with. Retrieval is leave-one-out among the 10,000 test images, in the
backbone's features and in the embedding that the loss sees; the probe trains on the labelled
training images.

With --held-out a fifth of the training images of each class takes the place of the test images and
is not trained on: for choices, such as that of a learning rate.
"""

from typing import Any

from runs import options, run_all, trained

QUESTION: dict[str, Any] = {
    "rince": {},
    "supcon-out": {"objective": "supcon-out"},
    "cross-entropy": {"objective": "cross-entropy"},
    # The control: every class in a wrong superclass.
    "rince-shuffled": {"ranks": {"move_classes": 1.0}},
}
# One thing at a time, and the paper's other losses. "lr" is a factor of the learning rate.
OTHERS: dict[str, Any] = {
    "rince-in": {"loss": {"variant": "in"}},
    "rince-out": {"loss": {"variant": "out"}},
    "rince-cumulative": {"loss": {"positives": "cumulative"}},
    "rince-tau-0.15": {"loss": {"temperatures": (0.1, 0.15)}},
    "rince-tau-0.4": {"loss": {"temperatures": (0.1, 0.4)}},
    "rince-quarter-lr": {"lr": 0.25},
    "rince-half-lr": {"lr": 0.5},
    "rince-double-lr": {"lr": 2.0},
    "rince-moved-10": {"ranks": {"move_classes": 0.1}},
    "rince-moved-20": {"ranks": {"move_classes": 0.2}},
    "rince-moved-40": {"ranks": {"move_classes": 0.4}},
    "rince-linear-head": {"model": {"head": "linear"}},
    "rince-batch-norm-head": {"model": {"head": "linear"}, "norm_in_head": True},
    "rince-and-cross-entropy": {"objective": "rince-and-cross-entropy"},
    "rince-queue": {"model": {"momentum": 0.99, "queue_size": 4096}},
    "supcon-out-quarter-lr": {"objective": "supcon-out", "lr": 0.25},
    "supcon-out-half-lr": {"objective": "supcon-out", "lr": 0.5},
    "supcon-out-double-lr": {"objective": "supcon-out", "lr": 2.0},
    "supcon-out-linear-head": {"objective": "supcon-out", "model": {"head": "linear"}},
    "supcon-out-batch-norm-head": {
        "objective": "supcon-out",
        "model": {"head": "linear"},
        "norm_in_head": True,
    },
    "supcon-coarse": {"objective": "supcon-coarse"},
    "supcon-two-heads": {"objective": "supcon-two-heads"},
    "infonce": {"objective": "infonce"},
    "cross-entropy-double-lr": {"objective": "cross-entropy", "lr": 2.0},
    "cross-entropy-half-lr": {"objective": "cross-entropy", "lr": 0.5},
}
# Ranks from the classes' names in place of superclasses: rank 2 are the four most similar classes,
# as many as there are siblings.
NAMES: dict[str, Any] = {
    f"rince{variant}-names-{source}": {
        "ranks": {"scores": source, "top_k": (4,)},
        "loss": {"variant": variant.lstrip("-") or "out-in"},
    }
    for source in ("wordnet", "text")
    for variant in ("", "-in")
}
METHODS = QUESTION | OTHERS | NAMES


def main():
    parser = options(__doc__.partition("\n")[0])
    parser.add_argument("--root", required=True, help="folder of cifar-100-python/")
    parser.add_argument("--labels", type=int, nargs="+", default=(50, 500, 10, 250, 25, 100))
    parser.add_argument("--views", nargs="+", default=("weak", "strong"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(QUESTION))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--held-out", action="store_true", help="judge by training images")
    arguments = parser.parse_args()
    shared = {name: getattr(arguments, name) for name in ("backbone", "images", "batch")}
    settings = [
        {"method": method, "labels": labels, "views": views, "seed": seed, **shared}
        | {"precision": arguments.precision}
        | ({"held_out": True} if arguments.held_out else {})
        for seed in arguments.seeds
        for labels in arguments.labels
        for views in arguments.views
        for method in arguments.methods
    ]
    run_all(settings, run, name_of, arguments)


def name_of(setting):
    name = "{backbone}-{images}-{labels}-{views}-{method}-{seed}".format(**setting)
    for option, default in (("batch", 128), ("precision", "32-true")):
        if setting[option] != default:
            name += f"-{setting[option]}"
    return name + "-held-out" * ("held_out" in setting)


def run(setting, arguments, outliers):
    from rince.training.splits import load_splits

    method = METHODS[setting["method"]]
    images = {"root": arguments.root, "per_class": setting["labels"]}
    held_out = _held_out(images, setting["seed"]) if "held_out" in setting else None
    spaces, config, result = trained(
        setting,
        arguments,
        name_of(setting),
        "cifar100",
        method.get("objective", "rince"),
        len(held_out.train) if held_out else 100 * setting["labels"],
        setting["views"],
        splits=held_out,
        norm_in_head=method.get("norm_in_head", False),
        images={} if held_out else images,
        optim={"lr_factor": method.get("lr", 1.0)},
        **{group: method[group] for group in ("loss", "ranks", "model") if group in method},
    )
    splits = held_out or load_splits(config)
    metrics = {}
    for space, network in spaces.items():
        measured = evaluate(network, splits, outliers, arguments.device)
        metrics |= {f"{space}/{name}": value for name, value in measured.items()}
    return {"metrics": metrics, **result}


def _held_out(images, seed):
    """A fifth of each class's training images in place of the test images."""
    from rince.data.items import Splits, split_by_hash
    from rince.training import ImageOptions, TrainConfig
    from rince.training.splits import load_splits

    config = TrainConfig(data="cifar100", images=ImageOptions(**images), seed=seed)
    return Splits(*split_by_hash(load_splits(config).train))


def evaluate(network, splits, outliers, device):
    from rince.data.batches import eval_batches
    from rince.evaluation.features import extract_features
    from rince.metrics import (
        ClassGaussians,
        auroc,
        linear_probe,
        rank_agreement,
        retrieval_by_level,
    )

    def features_of(items):
        return extract_features(network, eval_batches(items, 512), device).features.to(device)

    train, test = features_of(splits.train), features_of(splits.test)
    train_labels, labels = splits.train.labels, splits.test.labels
    taxonomy = splits.train.taxonomy
    coarse = taxonomy.labels_at(2)[labels]
    levels = {"fine": (labels, labels), "coarse": (coarse, coarse)}
    metrics = {}
    by_level = retrieval_by_level(test, test, levels, ks=(1,), exclude_self=True)
    for level, result in by_level.items():
        metrics[f"{level}/R@1"] = result.recall[1]
        metrics[f"{level}/mAP"] = result.mean_average_precision
    ranks = taxonomy.ranks(labels, labels, ignore_self=True)
    agreement = rank_agreement(test, test, ranks)
    metrics |= {f"ordering/{name}": value for name, value in agreement.items()}
    probe = linear_probe(test, train, labels, train_labels, num_classes=100, seed=0)
    metrics["fine/probe"] = probe.accuracy
    if not outliers:
        return metrics
    try:
        gaussians = ClassGaussians.fit(train, train_labels)
    except ValueError as error:  # too few images of a class
        return metrics | {"outliers": str(error)}
    detectors = {"gaussian": gaussians, "mahalanobis": gaussians.with_shared_covariance()}
    for name, other in ((name, features_of(items)) for name, items in outliers.items()):
        for detector, fit in detectors.items():
            metrics[f"outliers/{name}/{detector}"] = auroc(fit.score(test), fit.score(other))
    return metrics


if __name__ == "__main__":
    main()
