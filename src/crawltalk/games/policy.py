"""The network that plays: from a board to the probabilities of the six columns and the expected result.

A board and its mirror image are one position to it: it sees whichever of the two has the smaller key. So what it
knows of a move holds for the mirrored move, too.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.games.board import COLUMN, HEIGHT, ONE_COLUMN, WIDTH, key_of, mirror, playable, winning_cells
from crawltalk.model.trainable import Trainable
from crawltalk.recipe import Optim

PLANES = 5
"""Own stones, the opponent's, cells where either would win, and cells where a stone may fall."""
FEATURES = PLANES * WIDTH * HEIGHT + 2 * WIDTH
"""Planes of all cells; and for each column whether a stone there wins at once, or prevents the opponent's win."""
WIDTH_OF_LAYERS, LAYERS = 128, 2


class Policy(Trainable):
    """A multi-layer perceptron with residual layers (He et al. 2016), of 55,000 weights."""

    width = WIDTH_OF_LAYERS
    micro_batch_tokens = 8192

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(FEATURES, WIDTH_OF_LAYERS)
        self.layers = nn.ModuleList(nn.Linear(WIDTH_OF_LAYERS, WIDTH_OF_LAYERS) for _ in range(LAYERS))
        self.move = nn.Linear(WIDTH_OF_LAYERS, WIDTH)
        self.value = nn.Linear(WIDTH_OF_LAYERS, 1)

    def forward(self, features: Tensor, symmetric: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the columns, [N, 6], and the expected result for the player to move, [N], in -1..1.

        `features`: [N, FEATURES] of the boards that it sees. On a board that is its own mirror image, `symmetric`,
        a move and its mirror image have the same probability.
        """
        states = F.relu(self.entry(features))
        for layer in self.layers:
            states = states + F.relu(layer(states))
        logits = self.move(states)
        logits = torch.where(symmetric[:, None], (logits + logits.flip(1)) / 2, logits)
        free = features[:, (PLANES - 1) * WIDTH * HEIGHT : PLANES * WIDTH * HEIGHT]
        full = free.view(-1, WIDTH, HEIGHT).sum(2) == 0
        return logits.masked_fill(full, -torch.inf).log_softmax(1), torch.tanh(self.value(states))[:, 0]

    @torch.no_grad()
    def evaluate(self, own: np.ndarray, stones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(log-probabilities of the columns of the boards as they are, [N, 6]; values, [N]), float32."""
        features, turned, symmetric = features_of(own, stones)
        log_p, values = self(torch.from_numpy(features), torch.from_numpy(symmetric))
        log_probs = log_p.float().numpy()
        return np.where(turned[:, None], log_probs[:, ::-1], log_probs), values.float().numpy()

    def probabilities(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        """Of the columns, float32 [N, 6]."""
        return np.exp(self.evaluate(own, stones)[0])


def rates(learning_rate: float, cooldown: float) -> Optim:
    """AdamW for all weights. Losses of self-play rise and fall with its opponents, so none of them ends a training."""
    return Optim(muon_lr=0.0, adamw_lr=learning_rate, beta2=0.99, cooldown=cooldown, spike=0.0)


def save_policy(policy: Policy, path: str | Path) -> None:
    """Write the weights as safetensors."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: weight.detach().clone() for name, weight in policy.state_dict().items()}, temporary)
    temporary.replace(path)


def load_policy(path: str | Path) -> Policy:
    """Read what `save_policy` has written. Raises MissingInput, or BadInput for a file of something else."""
    if not Path(path).is_file():
        raise MissingInput(f"{path} is not there; train policies with: crawltalk lab move_37")
    policy = Policy()
    try:
        policy.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError):
        raise BadInput(
            f"{path} is no policy for connect four; give one that crawltalk lab has trained"
        ) from None
    return policy.eval()


@njit(cache=True)
def features_of(own, stones):
    """What the network sees of positions, float32 [N, FEATURES]; whether it is the mirror image, bool [N]; and whether
    that is the same, bool [N].
    """
    features = np.zeros((len(own), FEATURES), np.float32)
    turned, symmetric = np.zeros(len(own), np.bool_), np.zeros(len(own), np.bool_)
    for row in range(len(own)):
        mine, all_stones = own[row], stones[row]
        key, mirrored = key_of(mine, all_stones), key_of(mirror(mine), mirror(all_stones))
        symmetric[row], turned[row] = key == mirrored, mirrored < key
        if turned[row]:
            mine, all_stones = mirror(mine), mirror(all_stones)
        theirs, free = all_stones ^ mine, playable(all_stones)
        wins, losses = winning_cells(mine, all_stones), winning_cells(theirs, all_stones)
        for plane, cells in enumerate((mine, theirs, wins, losses, free)):
            for column in range(WIDTH):
                bits = cells >> (COLUMN * column)
                at = (plane * WIDTH + column) * HEIGHT
                for height in range(HEIGHT):
                    features[row, at + height] = (bits >> height) & 1
        at = PLANES * WIDTH * HEIGHT
        for column in range(WIDTH):
            here = free & (ONE_COLUMN << (COLUMN * column))
            features[row, at + column] = (wins & here) != 0
            features[row, at + WIDTH + column] = (losses & here) != 0
    return features, turned, symmetric
