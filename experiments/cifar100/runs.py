"""What the studies of this folder share: options, a queue of runs over processes, one training."""

import argparse
import json
import multiprocessing
import os
import platform
import queue as queues
import shutil
import time
import traceback
from pathlib import Path

# Of batches of 128; they grow with the batch, as the paper's do.
CONTRASTIVE_LR, CLASSIFIER_LR = 0.125, 0.2


def options(description):
    parser = queue_options(description)
    parser.add_argument("--images", type=int, default=400_000, help="images seen in training")
    parser.add_argument("--backbone", default="tiny-resnet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="32-true", help="Lightning's")
    return parser


def queue_options(description):
    """What :func:`run_all` reads."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the results, one .json a run")
    parser.add_argument("--outliers", nargs="*", default=[], help="NAME=PATH, other data")
    parser.add_argument("--workers", type=int, default=1, help="processes, a thread each")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start none after")
    return parser


def images_of(folder):
    from rince.data.image.files import FileImages

    return FileImages.from_folder(folder).preload(32)


def run_all(settings, run, name_of, arguments, outliers_of=images_of):
    """Run what has no result yet: ``run(setting, arguments, outliers)`` gives a dictionary. A run
    that was broken off goes on from its last checkpoint.

    ``outliers_of`` reads other data from what --outliers names.

    A run that fails is shown and left out; the others go on.
    """
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + arguments.seconds
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        queue = manager.Queue()
        for setting in settings:
            if not (arguments.out / f"{name_of(setting)}.json").exists():
                queue.put(setting)
        workers = [
            context.Process(
                target=_work, args=(queue, run, name_of, arguments, deadline, outliers_of)
            )
            for _ in range(arguments.workers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def _work(queue, run, name_of, arguments, deadline, outliers_of):
    import torch

    torch.set_num_threads(1)
    outliers = {
        name: outliers_of(folder)
        for name, folder in (given.split("=", 1) for given in arguments.outliers)
    }
    while time.time() < deadline:
        try:
            setting = queue.get_nowait()
        except queues.Empty:
            return
        start = time.perf_counter()
        try:
            result = run(setting, arguments, outliers)
        except Exception:
            traceback.print_exc()
            continue
        result["seconds"] = time.perf_counter() - start
        result["machine"] = f"{platform.machine()}, {arguments.device}, torch {torch.__version__}"
        file = arguments.out / f"{name_of(setting)}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(setting | result, indent=1))
        os.replace(part, file)
        shutil.rmtree(arguments.out / "runs" / file.stem, ignore_errors=True)
        print(f"{file.stem}: {result['seconds']:.0f} s", flush=True)


def trained(
    setting,
    arguments,
    name,
    data,
    objective,
    images_an_epoch,
    views,
    splits=None,
    norm_in_head=False,
    **groups,
):
    """Train one setting and read it back: the networks by space, its config, epochs and seconds.

    ``splits``: data in memory, in place of those of ``data``. ``norm_in_head``: a layer with a
    batch norm between network and head. ``groups`` are further option groups of ``TrainConfig``;
    dictionaries change the ``images``, ``optim``, ``model``, ``loss`` and ``ranks`` of here.
    "lr_factor" of ``optim`` multiplies the learning rate.
    """
    import torch
    from small_maps import QuickGradients

    from rince.training import (
        ImageOptions,
        LossOptions,
        ModelOptions,
        OptimOptions,
        RankOptions,
        TrainConfig,
        load_run,
        resume,
        train,
    )
    from rince.training.folder import CHECKPOINT_FILE, read_about

    batch = setting["batch"]
    epochs = max(1, round(setting["images"] / max(1, images_an_epoch // batch * batch)))
    rate = CLASSIFIER_LR if objective == "cross-entropy" else CONTRASTIVE_LR
    changed = groups.pop("optim", {})
    rate *= batch / 128 * changed.pop("lr_factor", 1.0)
    optim = {"lr": rate, "weight_decay": 5e-4, "warmup_epochs": 0.02 * epochs}
    config = TrainConfig(
        data=data,
        objective=objective,
        model=ModelOptions(backbone=setting["backbone"], **groups.pop("model", {})),
        optim=OptimOptions(**optim | changed),
        loss=LossOptions(**groups.pop("loss", {})),
        ranks=RankOptions(**groups.pop("ranks", {})),
        images=ImageOptions(augmentation=views, **groups.pop("images", {})),
        epochs=epochs,
        batch_size=batch,
        precision=setting["precision"],
        seed=setting["seed"],
        name=name,
        output=str(arguments.out / "runs"),
        accelerator="gpu" if arguments.device == "cuda" else "cpu",
        devices="1",
        log_every=100,
        knn_every=0,
        progress=False,
        **groups,
    )
    folder = arguments.out / "runs" / name
    torch.manual_seed(setting["seed"])
    own = _with_norm(setting["backbone"]) if norm_in_head else None
    on_a_cpu = arguments.device == "cpu" and setting["precision"] == "bf16-mixed"
    callbacks = [QuickGradients()] if on_a_cpu else []
    broken_off = (folder / CHECKPOINT_FILE).exists()  # perhaps after its last step
    if broken_off:
        resume(folder, progress=False, backbone=own, splits=splits, callbacks=callbacks)
    else:
        train(config, own, splits=splits, callbacks=callbacks)
    run = load_run(folder, own)
    result = {"epochs": epochs, "train_seconds": read_about(folder)["train_seconds"]}
    if broken_off:  # then "seconds" are of the last part
        result["broken_off"] = True
    # Features are those of the network alone.
    spaces = {"backbone": run.backbone.module[0] if norm_in_head else run.backbone.module}
    if run.head is not None:
        spaces["embedding"] = torch.nn.Sequential(run.backbone.module, run.head)
    return spaces, config, result


def _with_norm(name):
    from torch import nn

    from rince.models import Backbone, build_backbone

    network = build_backbone(name)
    width = network.feature_dim
    hidden = (nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
    return Backbone(nn.Sequential(network.module, *hidden), width)


def in_spaces(spaces, items, outliers, device):
    """The metrics of :func:`judged` of each network, its name in front."""
    return {
        f"{space}/{name}": value
        for space, network in spaces.items()
        for name, value in judged(network, items, outliers, device).items()
    }


def judged(network, items, outliers, device):
    """What :mod:`unseen` measures of one network.

    ``items`` are those of "train", "seen" and "unseen", each with a class tree of its own, of
    paths that begin with the superclass; ``outliers`` items of other data by name.
    """
    import torch

    from rince.data.batches import eval_batches
    from rince.evaluation.features import extract_features
    from rince.metrics import ClassGaussians, auroc, hierarchical_retrieval

    def features_of(some):
        return extract_features(network, eval_batches(some, 512), device).features.to(device)

    features = {side: features_of(x) for side, x in items.items()}
    names = {side: x.taxonomy.paths for side, x in items.items()}
    groups = sorted({path[0] for path in names["seen"]})
    classes = sorted({path for side in ("seen", "unseen") for path in names[side]})
    levels = {}
    for side in ("seen", "unseen"):
        of_class = torch.tensor(
            [[classes.index(path), groups.index(path[0])] for path in names[side]]
        )
        levels[side] = of_class[items[side].labels]

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
    gaussians = ClassGaussians.fit(features["train"], items["train"].labels)
    inliers = gaussians.score(features["seen"])
    others = {name: features_of(other) for name, other in outliers.items()}
    for name, other in (others | {"unseen": features["unseen"]}).items():
        metrics[f"outliers/{name}"] = auroc(inliers, gaussians.score(other))
    return metrics
