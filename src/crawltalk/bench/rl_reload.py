"""bench rl: replies of an engine that gets its weights from disk at each step, as without `update_weights`.

It is run by its path, so that it can measure another checkout of crawltalk: with PYTHONPATH set to that one's src.
"""

import random
import statistics
import sys
import time
from pathlib import Path


def main(folder: str, *numbers: str) -> None:
    """Print tokens a second, the first step left out."""
    import torch

    from crawltalk.engine import Sampling, load_engine
    from crawltalk.model.hf import load_model, save_model

    groups, samples, prompt, reply, steps, threads = map(int, numbers)
    torch.set_num_threads(threads)
    model, rng, speeds = load_model(folder), random.Random(0), list[float]()
    eos = model.shape.vocab_size - 1
    for step in range(steps):
        asked = [[rng.randrange(eos) for _ in range(prompt)] for _ in range(groups)]
        began = time.perf_counter()
        save_model(model, Path(folder), eos=eos)
        engine = load_engine(folder)
        sampling = Sampling(max_tokens=reply, seed=step)
        replies = engine.generate([ids for ids in asked for _ in range(samples)], sampling, frozenset())
        speeds.append(sum(map(len, replies)) / (time.perf_counter() - began))
    print(statistics.median(speeds[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
