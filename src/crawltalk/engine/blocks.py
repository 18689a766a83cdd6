"""Which sequence owns which block of the key/value cache, and which blocks a new prompt finds computed.

Kwon et al. 2023, sections 4.3 and 4.4.
"""

from collections import OrderedDict
from collections.abc import Sequence

from crawltalk.model.cache import BLOCK_SIZE

_BlockKey = tuple[int, tuple[int, ...]]
"""What a block is computed from: the prefix before it, and its own tokens."""


class BlockPool:
    """Blocks by number. A block that nobody owns keeps its keys and values until it is needed for others.

    What a block holds depends on its tokens and on all before them. So prefixes are numbered, and a prefix is
    known by the number of the prefix that is a block shorter and the tokens of its last block: equal keys
    mean equal prefixes, without any collision. The empty prefix is number 0.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._ref_counts = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        """Blocks without an owner; the least recently used stands first."""
        self._cached: dict[_BlockKey, tuple[int, int]] = {}
        """Key -> (number of the prefix that ends with the block, block)."""
        self._keys: dict[int, _BlockKey] = {}
        self._num_prefixes = 0

    @property
    def num_used(self) -> int:
        """Blocks that have an owner."""
        return self.num_blocks - len(self._free)

    def match_prefix(self, tokens: Sequence[int]) -> tuple[list[int], int]:
        """Own the blocks of the longest cached prefix that leaves a token over; the number of that prefix."""
        blocks, prefix = [], 0
        for start in range(0, len(tokens) - BLOCK_SIZE, BLOCK_SIZE):
            cached = self._cached.get((prefix, tuple(tokens[start : start + BLOCK_SIZE])))
            if cached is None:
                break
            prefix, block = cached
            self._free.pop(block, None)
            self._ref_counts[block] += 1
            blocks.append(block)
        return blocks, prefix

    def allocate(self) -> int | None:
        """Own a block; None if all are owned."""
        if not self._free:
            return None
        block, _ = self._free.popitem(last=False)
        key = self._keys.pop(block, None)
        if key is not None:
            del self._cached[key]
        self._ref_counts[block] = 1
        return block

    def cache_block(self, block: int, prefix: int, tokens: Sequence[int]) -> int:
        """Let others find a full block, of these tokens behind `prefix`. The number of the prefix that ends
        with it.
        """
        key = (prefix, tuple(tokens))
        if key not in self._cached:
            self._num_prefixes += 1
            self._cached[key] = self._num_prefixes, block
            self._keys[block] = key
        return self._cached[key][0]

    def free(self, blocks: Sequence[int]) -> None:
        """Own these blocks no longer. Of a prefix the end is evicted first."""
        for block in reversed(blocks):
            self._ref_counts[block] -= 1
            if not self._ref_counts[block]:
                self._free[block] = None
