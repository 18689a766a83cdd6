"""The lab: claims about how models learn, each shown or refuted by an experiment with its controls, over several seeds.

A new experiment is a file in this folder and a name in `EXPERIMENTS`. What it trains goes through the training loop,
the engine and the stages that everything else uses.
"""

from crawltalk.lab import (
    asked_by_prompt,
    fixed_compute,
    hackable_rewards,
    hallucination,
    hears_commands,
    hidden_inputs,
    interrogation,
    labelers,
    move_37,
    ranking,
    reads_images,
    recall_dose,
    reward_hacking,
    rl_amplifies,
    rl_discovers,
    rl_lengthens,
    rl_selects,
    same_prompt,
    search_helps,
    sl_plateaus_rl_surpasses,
    tokens_not_letters,
    tokens_to_think,
)
from crawltalk.lab.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    tokens_not_letters.EXPERIMENT,
    same_prompt.EXPERIMENT,
    recall_dose.EXPERIMENT,
    hallucination.EXPERIMENT,
    asked_by_prompt.EXPERIMENT,
    labelers.EXPERIMENT,
    interrogation.EXPERIMENT,
    search_helps.EXPERIMENT,
    fixed_compute.EXPERIMENT,
    tokens_to_think.EXPERIMENT,
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
)
"""In the order of the list that `crawltalk lab` prints."""
