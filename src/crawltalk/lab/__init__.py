"""The lab: claims about how models learn, each shown or refuted by an experiment with its controls, over several seeds.

A new experiment is a file in this folder and a name in `EXPERIMENTS`. What it trains goes through the training loop,
the engine and the stages that everything else uses.
"""

from crawltalk.lab.experiment import Experiment
from crawltalk.lab.rl_amplifies import EXPERIMENT as AMPLIFIES
from crawltalk.lab.rl_discovers import EXPERIMENT as DISCOVERS
from crawltalk.lab.rl_lengthens import EXPERIMENT as LENGTHENS
from crawltalk.lab.rl_selects import EXPERIMENT as SELECTS

EXPERIMENTS: tuple[Experiment, ...] = (SELECTS, LENGTHENS, AMPLIFIES, DISCOVERS)
"""In the order of the list that `crawltalk lab` prints."""
