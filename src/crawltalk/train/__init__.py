"""The one training loop, and its parts: batches, objectives, optimizers, checkpoints, ranks."""
