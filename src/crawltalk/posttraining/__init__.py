"""From a base model to an assistant: one algorithm a file."""
