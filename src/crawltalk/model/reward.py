"""A reward model: a Transformer whose last state becomes one number, the score of a whole conversation (Ziegler et al.
2019; Ouyang et al. 2022, section 3.5). Hugging Face's `ForSequenceClassification` with one label.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crawltalk.core.errors import BadInput
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer

SCORED_TOKENS = 4096
"""Positions of one forward pass of `scores_of`."""


class RewardModel(Transformer):
    """Conversations in, scores out. Only differences of scores have a meaning (Bradley and Terry 1952)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(dataclasses.replace(shape, tie_embeddings=True))  # no head that gives logits
        self.score = nn.Linear(shape.width, 1, bias=False)

    def scores(
        self,
        tokens_BT: Tensor,
        rows_N: Tensor,
        lasts_N: Tensor,
        documents_BT: Tensor | None = None,
        parents_BT: Tensor | None = None,
    ) -> Tensor:
        """The scores of conversations, [N] fp32, by the rows and positions of their last tokens; the documents and
        their parents are those of `states`.
        """
        states_BTD = self.states(tokens_BT, documents_BT=documents_BT, parents_BT=parents_BT)
        # a score is the sum of many numbers: in 16 bits near ones would become equal
        return F.linear(states_BTD[rows_N, lasts_N].float(), self.score.weight.float())[:, 0]

    @torch.no_grad()
    def scores_of(self, conversations: Sequence[Sequence[int]]) -> Tensor:
        """The scores of token ids, [conversations] fp32. Those of about the same length are computed together. Raises
        BadInput for one without tokens or longer than the context.
        """
        sizes = [len(ids) for ids in conversations]
        if sizes and not 0 < min(sizes) <= max(sizes) <= self.shape.context:
            raise BadInput(
                f"a reward model scores 1 to {self.shape.context} tokens, not {min(sizes)} to {max(sizes)}"
            )
        device, result = self.embedding.weight.device, torch.zeros(len(sizes))
        order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
        while order:
            count = max(1, SCORED_TOKENS // sizes[order[0]])
            part, order = order[:count], order[count:]
            tokens_BT = torch.zeros((len(part), sizes[part[0]]), dtype=torch.int64)
            for row, number in enumerate(part):
                tokens_BT[row, : sizes[number]] = torch.tensor(conversations[number])
            lasts_N = torch.tensor([sizes[number] - 1 for number in part], device=device)
            rows_N = torch.arange(len(part), device=device)
            result[part] = self.scores(tokens_BT.to(device), rows_N, lasts_N).cpu()
        return result


def reward_model_of(model: Transformer, seed: int = 0) -> RewardModel:
    """A reward model with the weights of a language model, which it shares, but for the head. What turns the last state
    into a score is drawn, with variance 1 / (D + 1) (Stiennon et al. 2020, appendix B.1).
    """
    with torch.device("meta"):
        result = RewardModel(model.shape)
    weights = {name: weight for name, weight in model.named_parameters() if name != "head.weight"}
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn((1, model.shape.width), generator=generator) * (model.shape.width + 1) ** -0.5
    score = score.to(model.embedding.weight.device)
    result.load_state_dict({**weights, "score.weight": score}, assign=True)
    result.rope_cos, result.rope_sin = model.rope_cos, model.rope_sin
    return result
