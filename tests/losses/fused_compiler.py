"""What Triton's compiler and ptxas say of the fused engine's kernels; no card is needed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

from rince.losses.blockwise.fused import Tiles, constants_of

LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes of shared memory per block


@dataclass(frozen=True)
class Report:
    shared: int  # bytes
    registers: int
    spilled: int  # bytes
    ptx: str


def ptxas(capability: int) -> str | None:
    """The one that Triton takes for such a card; None: it comes without."""
    from triton.backends.nvidia.compiler import get_ptxas

    try:
        path: str = get_ptxas(capability).path
    except RuntimeError:
        return None
    return path


def compile_kernel(
    name: str, capability: int, tiles: Tiles, dimension: int, precision: str, **changed: Any
) -> Report:
    """changed: constants other than ranks from a table, R = 3, "out-in", exclusive positives."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rince.losses.blockwise import fused_kernels

    kernel = getattr(fused_kernels, name)
    constants = {
        "D": dimension,
        "BD": min(tiles.components, max(16, 1 << (dimension - 1).bit_length())),
        "BM": tiles.rows,
        "BN": tiles.columns,
        "R": 3,
        "OUT": 1,
        "CUMULATIVE": False,
        "LEVELS": 0,
        "OWN": False,
        "VALID": True,
        "PRECISION": tiles.products,
        "SORTED": True,
    }
    embeddings = "*bf16" if precision == "bf16" else "*fp32"
    types = {"query": embeddings, "key": embeddings, "q_codes": "*i64", "k_codes": "*i64"}
    types |= {"table": "*i8", "key_valid": "*u8", "active": "*i8", "c": "constexpr"}
    types |= dict.fromkeys(("Q", "K", "C", "num_splits"), "i32")
    signature = {x: types.get(x, "*fp32") for x in kernel.arg_names}
    # As at run time, where pointers are multiples of 16.
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, x in enumerate(kernel.arg_names)
        if signature[x].startswith("*")
    }
    compiled_for = {"c": constants_of(**constants | changed)}
    compiled = triton.compile(
        ASTSource(
            fn=kernel,
            signature=signature,
            constexprs=compiled_for,
            attrs=aligned,
        ),
        target=GPUTarget("cuda", capability, 32),
        options={
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
            "enable_fp_fusion": True,
        },
    )
    program = ptxas(capability)
    assert program is not None
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(compiled.asm["ptx"])
        file.flush()
        architecture = f"sm_{capability}" + ("a" if capability >= 90 else "")
        run = subprocess.run(
            [program, "-v", f"--gpu-name={architecture}", file.name, "-o", "/dev/null"],
            capture_output=True,
            text=True,
            check=True,
        )
    (registers,) = re.findall(r"Used (\d+) registers", run.stderr)
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill stores", run.stderr)))
    return Report(compiled.metadata.shared, int(registers), spilled, compiled.asm["ptx"])
