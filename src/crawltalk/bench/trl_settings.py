"""Settings of TRL's trainers that all benchmarks share: the best on a CPU, and nothing that writes or prints."""

from typing import Any

ON_CPU: dict[str, Any] = {
    "use_cpu": True,
    "gradient_checkpointing": False,
    "optim": "adamw_torch_fused",
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
