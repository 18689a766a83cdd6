"""The one training loop, its optimizers and its schedule."""
