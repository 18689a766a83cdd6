"""Sizes that follow from the corpus and the machine."""

from hypothesis import assume, given
from hypothesis import strategies as st

from crawltalk.recipe import Machine, Model, Pretrain, cost
from crawltalk.recipe.layers import load_recipe
from crawltalk.recipe.size import (
    CORE_FLOPS,
    DEPTHS,
    PASSES,
    SECONDS,
    SMALLEST_BATCH,
    STEPS,
    VOCABULARIES,
    fit_to_corpus,
    train_bytes,
    training_flop,
    vocabulary_for,
)
from crawltalk.recipe.toml import to_toml

flops = st.floats(1e9, 1e19)
corpora = st.integers(1, 10**10)
vocabularies = st.sampled_from(VOCABULARIES)
OWN = {"crawl.source": "pages", "machine.device": "cpu"}


@given(flop=flops, vocab_size=vocabularies, corpus=corpora)
def test_a_training_costs_no_more_than_it_may_and_no_more_passes_than_teach_something(
    flop, vocab_size, corpus
):
    config = fit_to_corpus(Pretrain(flop=flop), vocab_size, corpus)
    assert config.model.depth in DEPTHS
    assert config.tokens is not None
    assert cost.training_flops(config.model, vocab_size, config.tokens) <= flop
    assert config.tokens <= max(PASSES * corpus, STEPS * SMALLEST_BATCH)
    assert SMALLEST_BATCH <= config.batch_tokens <= 8192
    assert config.optim.muon_lr is not None
    assert fit_to_corpus(config, vocab_size, corpus) == config


@given(flop=flops, vocab_size=vocabularies, corpus=corpora, factor=st.floats(1, 100))
def test_more_time_and_more_text_make_no_smaller_model(flop, vocab_size, corpus, factor):
    depth = fit_to_corpus(Pretrain(flop=flop), vocab_size, corpus).model.depth
    more_time = fit_to_corpus(Pretrain(flop=flop * factor), vocab_size, corpus).model.depth
    more_text = fit_to_corpus(Pretrain(flop=flop), vocab_size, round(corpus * factor)).model.depth
    assert depth is not None
    assert depth <= (more_time or 0)
    assert depth <= (more_text or 0)


@given(
    flop=flops,
    vocab_size=vocabularies,
    corpus=corpora,
    depth=st.integers(1, 20),
    tokens=st.integers(1, 10**9),
)
def test_what_the_recipe_says_stays(flop, vocab_size, corpus, depth, tokens):
    config = fit_to_corpus(Pretrain(flop=flop, model=Model(depth=depth), tokens=tokens), vocab_size, corpus)
    assert (config.model.depth, config.model.width, config.tokens) == (depth, 64 * depth, tokens)


@given(size=st.integers(0, 10**12), other=st.integers(0, 10**12))
def test_more_text_makes_no_smaller_vocabulary(size, other):
    assume(size <= other)
    assert VOCABULARIES[0] <= vocabulary_for(size) <= vocabulary_for(other) <= VOCABULARIES[-1]


@given(flop=st.floats(1e13, 1e19), vocab_size=vocabularies)
def test_the_text_that_is_chosen_is_seen_at_least_once_with_its_flagships(flop, vocab_size):
    """Text of `train_bytes`, and as much in repeated flagships, is one pass of the training at most."""
    corpus = 2 * train_bytes(flop) // 4
    config = fit_to_corpus(Pretrain(flop=flop), vocab_size, corpus)
    assume(config.model.depth != DEPTHS[-1])
    assert (config.tokens or 0) >= 0.75 * corpus


def test_the_machine_decides_once_and_the_recipe_keeps_it(tmp_path):
    recipe = load_recipe("own", (), OWN | {"machine.workers": "2"})
    assert recipe.pretrain.flop == training_flop(Machine(workers=2, device="cpu")) == SECONDS * 2 * CORE_FLOPS
    assert recipe.tokens.train_bytes == train_bytes(recipe.pretrain.flop)
    assert recipe.pretrain.model.depth is None
    assert recipe.pretrain.model.width is None
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    elsewhere = load_recipe(path, (), {"machine.workers": "16"})
    assert (elsewhere.pretrain, elsewhere.tokens) == (recipe.pretrain, recipe.tokens)


def test_a_recipe_with_both_sizes_asks_no_machine():
    recipe = load_recipe("own", (), OWN | {"pretrain.model.depth": "2", "tokenizer.vocab_size": "512"})
    assert recipe.pretrain.flop is None
    assert recipe.tokens.train_bytes is None
    assert recipe.pretrain.tokens == 20 * cost.parameters(recipe.pretrain.model, 512)
    paid = load_recipe("nano", (), {"pretrain.flop": "1e12"}).pretrain
    assert paid.tokens == 300_000  # the preset gives it
