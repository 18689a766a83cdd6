"""The experiment on attribution: that it measures what it says, and when it is confirmed."""

import json

import numpy as np
import pytest

from crawltalk.lab import attribution
from crawltalk.lab.experiment import Trial
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress


@pytest.fixture
def small(monkeypatch):
    sizes = {
        "PAGES": 12,
        "ASKED": 2,
        "LENGTH": 16,
        "PASSES": 1,
        "ROWS": 6,
        "STEPS": 2,
        "SUBSETS": 2,
        "CHECKPOINTS": 2,
    }
    for name, size in sizes.items():
        monkeypatch.setattr(attribution, name, size)


def test_a_seed_is_measured_judged_and_drawn_and_measures_the_same_once_more(small, tmp_path):
    machine = Machine(workers=1, device="cpu", dtype="float32")
    trial = Trial(seed=0, out=tmp_path, progress=Progress(), machine=machine)
    figures = attribution.run(trial)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["methods"]["length"]["rho"].keys() == {*attribution.KINDS, "all"}
    assert figures["methods"]["Fisher, checkpoints"]["trainings"] == 4.0
    assert attribution.judge([figures]).verdict in ("confirmed", "partly", "not at this scale")
    assert attribution.figure([figures]).startswith("<svg")
    assert attribution.run(trial) == figures  # all trainings are there


def test_pages_that_are_asked_about_are_learned_or_not_as_the_kinds_say():
    corpus = attribution.corpus_of(0)
    pages = {tuple(ids) for ids, _ in corpus.pages}
    asked = attribution.ASKED
    assert all(tuple(ids) in pages for ids, _ in corpus.queries[:asked])
    assert not any(tuple(ids) in pages for ids, _ in corpus.queries[asked:])
    for (ids, learned), page in zip(corpus.queries, corpus.own, strict=True):
        assert any(learned) and not learned[0] and len(ids) == len(learned) <= attribution.LENGTH + 1
        if page is not None:  # the title is read
            assert ids[1] == corpus.pages[page][0][1]
    assert attribution.corpus_of(0).queries == corpus.queries != attribution.corpus_of(1).queries


def test_what_is_foretold_is_how_trainings_rank():
    rng = np.random.default_rng(0)
    worth = rng.random((3, 20))
    kept = [sorted(rng.permutation(20)[:10].tolist()) for _ in range(30)]
    losses = np.stack([5 - worth[:, pages].sum(1) for pages in kept])
    assert attribution.foretold(worth, kept, losses) == pytest.approx([1.0] * 3)
    assert attribution.foretold(-worth, kept, losses) == pytest.approx([-1.0] * 3)
    assert attribution.foretold(np.ones((3, 20)), kept, losses) == [0.0] * 3
    assert attribution.spearman(np.array([1, 2, 2, 9]), np.array([1, 3, 3, 4])) == pytest.approx(1.0)
    assert attribution.spearman(np.array([1, 1, 2, 2]), np.array([1, 2, 3, 4])) == pytest.approx(
        0.8944, abs=1e-4
    )


def test_gradients_are_confirmed_only_if_they_beat_words_spans_and_the_plain_product():
    def seed(ours: float, words: float = 0.5, random: float = 0.0) -> dict:
        rho = {"random": random, "BM25": words, "spans of 3": 0.5, "dot": 0.4, attribution.OURS: ours}
        methods = {name: {"trainings": 0.8, "rho": {"all": value}} for name, value in rho.items()}
        return {"ceiling": {"all": 0.7}, "methods": methods}

    for verdict, figures in {
        "confirmed": [seed(0.7), seed(0.6)],
        "partly": [seed(0.7), seed(0.6, words=0.61)],
        "not at this scale": [seed(0.7), seed(0.49, words=0.3)],
    }.items():
        assert attribution.judge(figures).verdict == verdict
    assert attribution.judge([seed(0.7, random=0.2)]).verdict == "not at this scale"
