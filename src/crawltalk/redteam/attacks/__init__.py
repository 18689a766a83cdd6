"""Attacks: one file an idea."""

from crawltalk.redteam.attacks.direction import DIRECTIONS
from crawltalk.redteam.attacks.media import MEDIA
from crawltalk.redteam.attacks.suffixes import SEARCHED, SUFFIXES
from crawltalk.redteam.attacks.templates import STATIC

ATTACKS = {attack.name: attack for attack in (*STATIC, *SUFFIXES, *DIRECTIONS, *MEDIA)}
"""By name."""
QUICK = {name: attack for name, attack in ATTACKS.items() if name not in SEARCHED}
"""Without the searches behind a form, which take as long as all others together."""
