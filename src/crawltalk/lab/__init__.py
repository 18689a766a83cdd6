"""The lab: claims about how models learn, each shown or refuted by an experiment with its controls, over several seeds.

A new experiment is a file in this folder and a name in `EXPERIMENTS`. What it trains goes through the training loop,
the engine and the stages that everything else uses.
"""

from crawltalk.lab import (
    hackable_rewards,
    hears_commands,
    hidden_inputs,
    move_37,
    poison_dose,
    poison_pages,
    poison_split,
    ranking,
    reads_images,
    reward_hacking,
    rl_amplifies,
    rl_discovers,
    rl_lengthens,
    rl_selects,
    sl_plateaus_rl_surpasses,
)
from crawltalk.lab.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    rl_selects.EXPERIMENT,
    rl_lengthens.EXPERIMENT,
    rl_amplifies.EXPERIMENT,
    rl_discovers.EXPERIMENT,
    sl_plateaus_rl_surpasses.EXPERIMENT,
    move_37.EXPERIMENT,
    ranking.EXPERIMENT,
    reward_hacking.EXPERIMENT,
    hackable_rewards.EXPERIMENT,
    reads_images.EXPERIMENT,
    hears_commands.EXPERIMENT,
    hidden_inputs.EXPERIMENT,
    poison_dose.EXPERIMENT,
    poison_split.EXPERIMENT,
    poison_pages.EXPERIMENT,
)
"""In the order of the list that `crawltalk lab` prints."""
