"""An encoder as an ONNX file, checked against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rince.core.checks import RinceError, import_extra
from rince.models.exported import ImageEncoder

ONNX_FILE = "model.onnx"
CHECKED_BATCHES = (1, 2, 5)
TOLERANCE = 1e-4  # of the largest output; fp32 in another order of sums is at about 1e-6


def write_onnx(encoder: ImageEncoder, file: Path) -> float:
    """Write the module as ONNX, for batches of any size, and compare it with torch.

    The file's input is called as the encoder's inputs are, its output ``features`` or, with a
    projection head, ``embeddings``. Gives the largest difference between ONNX Runtime and torch
    over random inputs, as a share of the largest output.
    """
    for library in ("onnx", "onnxscript"):  # torch imports them deep inside
        import_extra(library, "export")
    runtime = import_extra("onnxruntime", "export")
    output = "features" if encoder.embedding_dim is None else "embeddings"
    with torch.no_grad():
        try:
            torch.onnx.export(
                encoder.module,
                (_inputs(encoder, 2),),
                file,
                dynamo=True,
                input_names=[encoder.noun],
                output_names=[output],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
            session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
            worst = max(_difference(encoder, session, count) for count in CHECKED_BATCHES)
        except OSError:  # a full disk: whoever makes the folder says so
            raise
        except Exception as error:  # torch's exporter and ONNX Runtime raise whatever they like
            first_line = str(error).strip().partition("\n")[0]
            raise RinceError(
                f"this network cannot be written as ONNX ({type(error).__name__}: {first_line}); "
                f"leave it out with --no-onnx"
            ) from error
    if not worst <= TOLERANCE:  # NaN, too
        raise RinceError(
            f"the ONNX file gives other numbers than torch: they differ by {worst:.1e} of the "
            f"largest output, {TOLERANCE:.0e} is allowed; leave it out with --no-onnx"
        )
    return worst


def _difference(encoder: ImageEncoder, session: Any, count: int) -> float:
    inputs = _inputs(encoder, count)
    expected = encoder.module(inputs)
    (given,) = session.run(None, {encoder.noun: inputs.numpy()})
    output = torch.from_numpy(given)
    if output.shape != expected.shape:
        raise ValueError(f"it gives {tuple(output.shape)}, not {tuple(expected.shape)}")
    return float((output - expected).abs().max() / expected.abs().max())


def _inputs(encoder: ImageEncoder, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = encoder.spec.batch_shape(count)
    if not encoder.mean:
        return torch.randn(shape, generator=generator)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return encoder.normalised(pixels)
