"""What the benchmarks ask of a device: a clock, the peak memory, the launches, its name."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable

import torch

Work = Callable[[], object]


def seconds(work: Work, device: torch.device) -> float:
    """Of one call; on a GPU between two events on the stream."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def median_seconds(work: Work, device: torch.device, *, budget: float = 0.5) -> float:
    """Median of calls that take about ``budget`` seconds together (3 to 50), after a warm-up."""
    work()
    first = max(1e-6, seconds(work, device))
    rounds = int(min(50, max(3, budget / first)))
    return statistics.median(seconds(work, device) for _ in range(rounds))


def peak_bytes(work: Work) -> int:
    """Most that a call takes from the GPU's allocator, above what was taken before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def launches(work: Work) -> int:
    """Kernels, copies and fills that a call starts on the GPU, by PyTorch's profiler."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in seen.events())


def waits(work: Work) -> str:
    """ "none", or the first place where a call waits for the GPU."""
    work()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        places = []
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if "/rince/" in code.co_filename:
                places.append(f"{code.co_filename.rsplit('/rince/', 1)[1]}:{trace.tb_lineno}")
            trace = trace.tb_next
        return places[-1] if places else str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def about(device: torch.device) -> list[str]:
    """The machine and the versions, a line each."""
    try:
        import triton

        version = triton.__version__
    except ImportError:
        version = "none"
    software = [
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, Triton {version}, "
        f"{time.strftime('%Y-%m-%d')}"
    ]
    if device.type != "cuda":
        return [f"{platform.processor() or platform.machine()}, CPU", *software]
    properties = torch.cuda.get_device_properties(device)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        driver = "unknown"
    return [
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
        f"{properties.multi_processor_count} multiprocessors, driver {driver.split()[0]}, "
        f"CUDA {torch.version.cuda}",
        *software,
    ]
