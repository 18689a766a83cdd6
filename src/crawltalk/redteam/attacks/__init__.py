"""Attacks: one file an idea."""

from crawltalk.redteam.attacks.direction import DIRECTIONS
from crawltalk.redteam.attacks.suffixes import SUFFIXES
from crawltalk.redteam.attacks.templates import STATIC

ATTACKS = {attack.name: attack for attack in (*STATIC, *SUFFIXES, *DIRECTIONS)}
"""By name."""
