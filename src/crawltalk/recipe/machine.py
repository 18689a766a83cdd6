"""Where and how to compute: `[machine]`."""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how to compute. Changes nothing in what is computed, so no stage goes stale by it."""

    workers: int | None = None
    """Processes and threads; all usable cores if absent."""
    device: str | None = None
    """cpu or cuda; cuda if absent and there is one."""
    dtype: str | None = None
    """Compute type of matrix products: float32 or bfloat16; the faster one, by a start-up probe, if absent.
    """
    executor: str = "local"
    """What runs the data stage, and samples replies for reinforcement: local (this machine) or ray (a Ray cluster; pip
    install ray).
    """
    ray_address: str | None = None
    """Address of the Ray cluster, whose machines must share the run's folder. If absent: a cluster of this
    machine alone.
    """
    compile: bool | None = None
    """Train with torch.compile. If absent: on a GPU, when the training is long enough to win back the time of
    the compilation.
    """
    shard: bool = False
    """Split weights, gradients and optimizer state over the ranks of torchrun (FSDP2) instead of keeping a
    full copy on each.
    """
    activation_checkpointing: bool = False
    """Recompute each layer's activations in the backward pass instead of storing them: less memory, a third
    more compute.
    """
    tensorboard: str | None = None
    """A folder for event files of TensorBoard, one subfolder for each training (pip install
    'crawltalk[tensorboard]').
    """
    dollars_an_hour: float | None = None
    """Price of this machine. Manifests then record what each stage cost."""
    force: bool = False
    """Start even if the machine is estimated to be too small or too slow."""


def derive_machine(machine: Machine) -> Machine:
    """Fill in what the recipe leaves open: all usable cores, and a GPU if there is one."""
    gpu = Path("/dev/nvidiactl").exists()
    return dataclasses.replace(
        machine,
        workers=machine.workers or usable_cores(),
        device=machine.device or ("cuda" if gpu else "cpu"),
    )


def usable_cores(cgroup: str | Path = "/sys/fs/cgroup") -> int:
    """Cores that this process may use: those it is bound to (taskset), and no more than its container's quota of CPU
    time (docker run --cpus), rounded up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _quota(Path(cgroup))
    return cores if share is None else max(1, min(cores, math.ceil(share)))


def _quota(cgroup: Path) -> float | None:
    """CPU seconds a second that the kernel's control group allows, version 2 or 1; None: no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no such group, or "max"
        return None
