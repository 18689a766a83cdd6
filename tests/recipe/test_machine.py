"""How many cores and how much memory a process may use."""

import os

import pytest

from crawltalk.recipe import Machine
from crawltalk.recipe.machine import derive_machine, usable_cores
from crawltalk.run.machine import memory_bytes

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", BOUND), ("100000 100000", 1), ("20000 100000", 1), ("6400000 100000", BOUND)],
)
def test_a_container_with_a_quota_of_cpu_time_gets_as_many_workers(quota, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", BOUND), ("100000", 1), ("50000", 1)])
def test_so_does_one_of_the_older_control_groups(quota, cores, tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == cores


def test_without_control_groups_all_cores_are_used(tmp_path):
    assert usable_cores(tmp_path) == BOUND


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_process_that_is_bound_to_one_core_gets_one_worker():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert derive_machine(Machine()).workers == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_memory_of_a_container_is_its_limit(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{1 << 20}\n")
    assert memory_bytes(tmp_path) == 1 << 20
    path.write_text(f"{1 << 62}\n")  # how version 1 writes that there is none
    assert memory_bytes(tmp_path) > 1 << 20
