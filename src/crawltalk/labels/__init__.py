"""What people say of replies: ideal answers, edits, rankings and thumbs, in one store.

The store is one SQLite file, `labels.sqlite` in the folder of a run (`store.py`). From there labels go to training
(`export.py`): conversations for fine-tuning, pairs for DPO and reward models. `agreement.py` says how far labelers
agree with each other and with a judge, which is a model that ranks (`judge.py`).
"""

from crawltalk.labels.instructions import Instructions, read_instructions
from crawltalk.labels.rows import Candidate, Edit, Ideal, Label, Prompt, Ranking, Skip, Thumb
from crawltalk.labels.store import LabelStore

__all__ = [
    "Candidate",
    "Edit",
    "Ideal",
    "Instructions",
    "Label",
    "LabelStore",
    "Prompt",
    "Ranking",
    "Skip",
    "Thumb",
    "read_instructions",
]
