"""Rewards: who says how good a reply is, and what that is worth."""
