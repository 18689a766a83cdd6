"""Policy gradient on sampled replies, clipped as in PPO (Schulman et al. 2017): what GRPO and its relatives minimise.

Each token of a batch that the policy wrote is a target. The extras, [B, T] fp32, stand at the positions of the targets:
`advantages`, how much better than expected its reply was, times the token's weight in the mean; `log_probs`, what the
sampler gave it when it was drawn; and with a KL term `reference`, what the reference model gives it, and `weights`.
"""

import torch
from torch import Tensor

from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import Batch
from crawltalk.train.objectives import Figures, Objective
from crawltalk.train.objectives.log_probs import target_log_probs

MAX_LOG_RATIO = 2.3
"""A token that became ten times likelier than when it was drawn is not pushed further in either direction."""


def policy_gradient(clip_low: float = 0.2, clip_high: float = 0.28, kl: float = 0.0) -> Objective:
    """-min(ratio x advantage, clip(ratio, 1 - clip_low, 1 + clip_high) x advantage), summed over tokens. A higher bound
    above lets rare tokens become likely (DAPO; Yu et al. 2025, section 3.1).

    The ratio is to the sampler's own probabilities, so it also corrects what sampler and trainer compute differently.
    `kl` is the weight of the divergence from the reference, by the estimator that is never negative (Schulman 2020,
    k3).

    Figures: `entropy`, estimated by the tokens that were drawn; `sampler_difference`, the mean |log-ratio|;
    `clip_share`; with a KL term `kl`.
    """

    def objective(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor | int, Figures]:
        log_p, counted_BT = target_log_probs(
            model, batch.tokens, batch.targets, batch.documents, batch.parents
        )
        advantages, drawn = (batch.extras[name][counted_BT].to(log_p) for name in ("advantages", "log_probs"))
        ratio = (log_p - drawn).clamp(max=MAX_LOG_RATIO).exp()
        clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
        losses = -torch.minimum(ratio * advantages, clipped * advantages)
        outside = ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & (advantages < 0))
        figures: dict[str, Tensor] = {
            "entropy": -log_p.detach().sum(),
            "sampler_difference": (log_p.detach() - drawn).abs().sum(),
            "clip_share": outside.sum(),
        }
        if kl:
            apart = batch.extras["reference"][counted_BT].to(log_p) - log_p
            divergence = apart.exp() - apart - 1
            losses = losses + kl * batch.extras["weights"][counted_BT].to(log_p) * divergence
            figures["kl"] = divergence.detach().sum()
        return losses.sum(), len(log_p), figures

    return objective
