"""Who owns which block of the key/value cache, and which blocks a new prompt finds computed.

Kwon et al. 2023, sections 4.3 and 4.4.
"""

from collections import OrderedDict
from collections.abc import Sequence

from crawltalk.model.cache import BLOCK


class BlockPool:
    """Blocks by number. A block that nobody owns keeps its content until it is needed for another.

    What a block holds depends on its tokens and on all before them. So contents are numbered, and a content
    is known by the number of the content before it and its own tokens: equal keys mean equal prefixes,
    without any collision.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._owners = [0] * blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        """Blocks without an owner; the first was let go first."""
        self._known: dict[tuple[int, tuple[int, ...]], tuple[int, int]] = {}
        """(content before, tokens) -> (content, block)."""
        self._keys: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._contents = 0

    @property
    def used(self) -> int:
        """Blocks that have an owner."""
        return self.blocks - len(self._free)

    def find(self, tokens: Sequence[int]) -> tuple[list[int], int]:
        """Own the blocks of the longest known prefix that leaves a token over; the content of the last of
        them.
        """
        found, content = [], 0
        for start in range(0, len(tokens) - BLOCK, BLOCK):
            entry = self._known.get((content, tuple(tokens[start : start + BLOCK])))
            if entry is None:
                break
            content, block = entry
            self._free.pop(block, None)
            self._owners[block] += 1
            found.append(block)
        return found, content

    def take(self) -> int | None:
        """Own a block; None if there is none."""
        if not self._free:
            return None
        block, _ = self._free.popitem(last=False)
        self._known.pop(self._keys.pop(block, (-1, ())), None)
        self._owners[block] = 1
        return block

    def remember(self, block: int, before: int, tokens: Sequence[int]) -> int:
        """Say that a block is full, of these tokens behind content `before`. The number of its content."""
        key = (before, tuple(tokens))
        if key not in self._known:
            self._contents += 1
            self._known[key] = self._contents, block
            self._keys[block] = key
        return self._known[key][0]

    def let_go(self, blocks: Sequence[int]) -> None:
        """Own these blocks no longer. Of a prefix the end is forgotten first."""
        for block in reversed(blocks):
            self._owners[block] -= 1
            if not self._owners[block]:
                self._free[block] = None
