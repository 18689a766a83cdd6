"""The lab: claims about how models learn, each shown or refuted by an experiment with its controls, over several seeds.

A new experiment is a file in this folder and a name in `EXPERIMENTS`. What it trains goes through the training loop,
the engine and the stages that everything else uses.
"""

from crawltalk.lab.experiment import Experiment
from crawltalk.lab.move_37 import MOVE_37
from crawltalk.lab.sl_plateaus_rl_surpasses import SL_PLATEAUS_RL_SURPASSES

EXPERIMENTS: tuple[Experiment, ...] = (
    SL_PLATEAUS_RL_SURPASSES,
    MOVE_37,
)
"""In the order of the list that `crawltalk lab` prints."""
