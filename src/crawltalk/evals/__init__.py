"""What the base model and the assistant can do, measured."""
