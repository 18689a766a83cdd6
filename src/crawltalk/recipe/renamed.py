"""Fields that were renamed. An old name is refused, and the error gives the new one."""

RENAMED: dict[str, str] = {
    "machine.engine": "machine.executor",
    "machine.recompute": "machine.activation_checkpointing",
    "pretrain.optim.adam_lr": "pretrain.optim.adamw_lr",
    "pretrain.optim.lr": "pretrain.optim.muon_lr",
    "pretrain.start": "pretrain.resume_from",
    "redteam.canaries": "redteam.secrets",
    "sft.optim.adam_lr": "sft.optim.adamw_lr",
    "sft.optim.lr": "sft.optim.muon_lr",
    "sft.start": "sft.resume_from",
    "sft.arithmetic": "sft.tasks.arithmetic",
    "sft.spelling": "sft.tasks.spelling",
    "sft.identity": "sft.tasks.identity",
    "sft.refusals": "sft.tasks.refusal",
}
"""Old dotted name -> new one."""
