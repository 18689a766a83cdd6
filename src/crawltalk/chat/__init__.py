"""Conversations, and how models read and write them."""
