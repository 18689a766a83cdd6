"""A pool of processes: whatever a verifier does, it costs one reply."""

import sys

import pytest

from crawltalk.core.errors import MissingInput
from crawltalk.rewards import Outcome
from crawltalk.rewards.pool import Pool
from support.verifiers import Broken, moody, problem


@pytest.fixture(scope="module")
def pool():
    with Pool(moody, 2, seconds=0.3) as judge:
        yield judge


def judged(pool: Pool, replies: list[str]) -> list[str]:
    return [verdict.outcome.value for verdict in pool([problem("5")] * len(replies), replies)]


def test_a_process_that_dies_hangs_or_raises_costs_one_reply(pool):
    before = pool.replaced
    replies = ["5", "die", "6", "sleep 60", "5", "raise", "infinity", "5", "compute"]
    verdicts = pool([problem("5")] * len(replies), replies)
    assert [verdict.outcome.value for verdict in verdicts] == [
        "correct", "error", "wrong", "error", "correct", "error", "error", "correct", "error",
    ]  # fmt: skip
    assert verdicts[1].reason == "the verifier's process ended: exit code 3"
    assert verdicts[3].reason == "the verifier took more than 1.8 s by the clock"
    assert "no such luck" in verdicts[5].reason
    assert all(verdict.reward is None for verdict in verdicts if verdict.outcome == Outcome.ERROR)
    assert judged(pool, ["5", "6"]) == ["correct", "wrong"]
    assert verdicts[8].reason.startswith("the verifier took more than ")
    assert pool.replaced == before + 3


def test_time_counts_from_execution_and_not_from_queueing(pool):
    assert judged(pool, ["sleep 0.3"] * 14) == ["correct"] * 14  # 2.1 s for each of the two processes


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_reply_that_takes_all_memory_is_an_error(pool):
    (verdict,) = pool([problem("5")], ["use all memory"])
    assert verdict.outcome == Outcome.ERROR
    assert verdict.reason.startswith("MemoryError")


def test_nothing_to_judge_starts_nothing():
    judge = Pool(moody, 2)
    assert judge([], []) == []
    assert judge._workers == []


def test_as_many_replies_as_problems(pool):
    with pytest.raises(ValueError, match="shorter"):
        pool([problem("5")], [])


def test_a_verifier_that_cannot_be_loaded_is_no_replys_fault():
    with Pool(Broken()) as judge, pytest.raises(RuntimeError, match="its table is not here"):
        judge([problem("5")], ["5"])


def test_a_missing_library_is_said_in_one_line():
    with Pool(missing) as judge, pytest.raises(MissingInput, match=r"^install it$"):
        judge([problem("5")], ["5"])


def missing(asked, reply):
    raise MissingInput("install it")
