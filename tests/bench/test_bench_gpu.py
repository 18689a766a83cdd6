"""The benchmark for GPUs, in miniature on a CPU."""

import pytest
import torch

from crawltalk.bench.gpu import LIMITS, PARTS, run_part

pytestmark = pytest.mark.slow
NAMES = {
    "train": ["gpu.train", "gpu.train_mfu", "gpu.train_memory"],
    "resume": ["gpu.resume"],
    "ranks": ["gpu.ranks_copies", "gpu.ranks_shards"],
    "decode": ["gpu.decode_ids", "gpu.decode"],
    "rl": ["gpu.rl_rollout", "gpu.rl_sampler", "gpu.rl_reward"],
}


@pytest.mark.parametrize("part", LIMITS)
def test_each_part_passes_its_check(part, tmp_path):
    if part == "decode":
        pytest.importorskip("transformers")
    if part in ("train", "ranks"):
        rows = run_part(part, "cpu", LIMITS[part])
    else:  # without a process of its own, which takes seconds to start
        rows = list(PARTS[part](torch.device("cpu"), tmp_path))
    assert [row["name"] for row in rows] == NAMES[part], rows
    assert all(row["passed"] for row in rows), rows


def test_a_part_that_runs_over_its_limit_says_so():
    [row] = run_part("train", "cpu", 0.01)
    assert row["unit"] == "failed: not done after 0.01 s"
    assert not row["passed"]


def test_a_part_that_fails_says_why():
    [row] = run_part("train", "abacus", 60)
    assert "abacus" in row["unit"]


def test_all_parts_take_less_than_ten_minutes():
    assert sum(LIMITS.values()) < 600
