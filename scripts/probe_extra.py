"""Use what an extra is for. Run by check_extras.sh, in an environment with that extra alone."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import rince

CLASSES = ("dog", "cat", "car")


def base() -> None:
    for name in rince.__all__:  # type: ignore[attr-defined]
        getattr(rince, name)
    tree = rince.Taxonomy.from_dict({"pet": ["dog", "cat"], "thing": ["car"]})
    labels = torch.arange(300) % 3
    z = torch.nn.functional.normalize(torch.randn(300, 16), dim=1).requires_grad_()
    criterion = rince.RankedInfoNCE(temperatures=(0.1, 0.225), variant="out-in")
    criterion(z, z, tree.ranks(labels, labels, ignore_self=True)).backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())
    assert "rince VERB" in command("--help")
    assert rince.__version__ in command("--version")


def nothing_more() -> None:
    """Without any extra the command line says what it needs."""
    errors = io.StringIO()
    from rince.cli.main import main

    with contextlib.redirect_stderr(errors):
        assert main(["train", "photos/"]) == 1
    assert "pip install 'rince[train]'" in errors.getvalue()


def train() -> None:
    from PIL import Image

    photos = Path("photos")
    for group, name, hue in (("pet", "dog", 200), ("pet", "cat", 120), ("thing", "car", 40)):
        folder = photos / group / name
        folder.mkdir(parents=True)
        for index in range(20):
            pixels = (torch.randn(16, 16, 3) * 30 + hue).clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    command("ranks photos/")
    command("train photos/ --epochs 1 --batch-size 16 --images.image-size 16 --name a")
    command("evaluate runs/a --probe-epochs 2 --ood digits")
    command("compare runs/a -o report.html")
    command("embed runs/a photos/")
    shown = command("search photos/pet/dog/1.png --gallery embeddings.npz --run runs/a -k 2")
    query, *found = shown.splitlines()
    assert query == "photos/pet/dog/1.png"
    assert [line.split()[0] for line in found] == ["1", "2"]
    assert not any(line.endswith(query) for line in found)


def export() -> None:
    from rince.core.input_spec import InputSpec
    from rince.models.backbones import build_backbone
    from rince.models.exported import ImageEncoder
    from rince.models.onnx_file import write_onnx

    encoder = ImageEncoder(
        module=build_backbone("tiny-resnet", InputSpec.images(size=16)).module.eval(),
        backbone="tiny-resnet",
        output_dim=128,
        embedding_dim=None,
        num_heads=1,
        spec=InputSpec.images(3, 16),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        class_paths=(("dog",),),
    )
    encoder.save(Path.cwd())
    assert rince.load_exported(".").fingerprint() == encoder.fingerprint()
    assert write_onnx(encoder, Path("model.onnx")) < 1e-4


def search() -> None:
    from rince.evaluation import Embeddings, build_index, load_index, save_index

    gallery = Embeddings(("a", "b"), torch.eye(2), "net")
    save_index(build_index(gallery, "hnsw"), "a.faiss")
    assert load_index("a.faiss").nearest(torch.eye(2), 1)[1].tolist() == [[0], [1]]


def timm() -> None:
    from rince.core.input_spec import InputSpec
    from rince.models.backbones import build_backbone

    assert build_backbone("timm/resnet10t", InputSpec.images(size=32)).feature_dim == 512


def text() -> None:
    scores = rince.ranks.name_scores_by_text(CLASSES)
    assert scores.by_top_k([1]).num_ranks == 2


def sentence_transformers() -> None:
    import rince.adapters.sentence_transformers as adapter

    assert adapter.RankedLoss


def parquet() -> None:
    import pyarrow
    from pyarrow import parquet as files

    from rince.evaluation.embeddings import Embeddings

    rows = {"name": list(CLASSES), **{name: [1.0, 0.5, 0.2] for name in CLASSES}}
    files.write_table(pyarrow.table(rows), "scores.parquet")
    assert rince.Similarity.from_file("scores.parquet").classes == CLASSES
    assert Embeddings


def metric_learning() -> None:
    from rince.adapters.metric_learning import RankedInfoNCELoss

    tree = rince.Taxonomy.from_dict({"pet": ["dog", "cat"], "thing": ["car"]})
    loss = RankedInfoNCELoss(tree, temperatures=(0.1, 0.2))
    assert loss(torch.randn(9, 4), torch.arange(9) % 3).isfinite()


def command(arguments: str) -> str:
    """The installed `rince`, not the module."""
    program = Path(sys.executable).parent / "rince"
    result = subprocess.run([program, *arguments.split()], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def main() -> None:
    extra = sys.argv[1]
    where = Path(rince.__file__).parent
    assert "site-packages" in str(where), f"the source in {where} is being tested, not the wheel"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        base()
        globals()["nothing_more" if extra == "base" else extra.replace("-", "_")]()
        os.chdir("/")
    version = sys.version.split()[0]
    print(f"{extra}: passed with Python {version}, torch {torch.__version__}", flush=True)


if __name__ == "__main__":
    main()
