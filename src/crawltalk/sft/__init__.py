"""Supervised fine-tuning: conversations made from the documents turn the base model into an assistant."""
