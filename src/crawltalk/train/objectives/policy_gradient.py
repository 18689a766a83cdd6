"""Policy gradient on sampled replies, clipped as in PPO (Schulman et al. 2017): what GRPO and its relatives minimise.

Each token of a batch that the policy wrote is a target. The extras, [B, T] fp32, stand at the positions of the targets:
`advantages`, how much better than expected its reply was, times the token's weight in the mean; `log_probs`, what the
sampler gave it when it was drawn; and with a KL term `reference`, what the reference model gives it, and `weights`.
"""

import torch
from torch import Tensor

from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import IGNORE_INDEX, Batch
from crawltalk.train.objectives import Figures, Objective
from crawltalk.train.objectives.log_probs import losses_of_targets

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
        counted_BT = batch.targets != IGNORE_INDEX
        advantages, drawn = (batch.extras[name][counted_BT] for name in ("advantages", "log_probs"))
        reference = batch.extras["reference"][counted_BT] if kl else None
        weights = batch.extras["weights"][counted_BT] if kl else None

        def losses(log_p: Tensor, part: slice) -> Tensor:
            ratio = (log_p - drawn[part]).clamp(max=MAX_LOG_RATIO).exp()
            clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
            pushed = -torch.minimum(ratio * advantages[part], clipped * advantages[part])
            if reference is None or weights is None:
                return pushed
            return pushed + kl * weights[part] * _divergence(log_p, reference[part])

        total, log_p = losses_of_targets(model, batch, losses)
        ratio = (log_p - drawn).clamp(max=MAX_LOG_RATIO).exp()
        outside = ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & (advantages < 0))
        figures: dict[str, Tensor] = {
            "entropy": -log_p.sum(),
            "sampler_difference": (log_p - drawn).abs().sum(),
            "clip_share": outside.sum(),
        }
        if reference is not None:
            figures["kl"] = _divergence(log_p, reference).sum()
        return total, len(log_p), figures

    return objective


def _divergence(log_p: Tensor, reference: Tensor) -> Tensor:
    apart = reference - log_p
    return apart.exp() - apart - 1
