"""Tools that an assistant calls: one protocol for chat, server, rollouts and evaluation."""
