"""Which sequence owns which block of the key/value cache, and which blocks a new prompt can reuse.

Kwon et al. 2023, sections 4.3 and 4.4.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class BlockContent(NamedTuple):
    """What a full block holds."""

    tokens: tuple[int, ...]
    extra_keys: tuple[tuple[int, bytes], ...]
    """(start, hash) of each embedding; the start is counted from the block's first position."""


_BlockKey = tuple[int, BlockContent]
"""What keys and values are computed from: the prefix before the block, and what the block holds."""


class BlockPool:
    """Blocks by number. A block that nobody owns keeps its keys and values until it is needed for others.

    Keys and values depend on a block's content and on all before it. So prefixes are numbered, and a prefix
    is known by the number of the prefix that is a block shorter and the content of its last block: equal keys
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

    def match_prefix(self, contents: Iterable[BlockContent]) -> tuple[list[int], int]:
        """Own the blocks of the longest cached prefix of these contents. Returns its blocks and its number."""
        blocks, prefix = [], 0
        for content in contents:
            cached = self._cached.get((prefix, content))
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

    def cache_block(self, block: int, prefix: int, content: BlockContent) -> int:
        """Let other sequences match a full block, of this content behind `prefix`. Returns the number of the
        prefix that ends with it.
        """
        key = (prefix, content)
        if key not in self._cached:
            self._num_prefixes += 1
            self._cached[key] = self._num_prefixes, block
            self._keys[block] = key
        return self._cached[key][0]

    def forget(self) -> None:
        """Match no block that is in the cache: other weights computed it. Blocks are taken from the first one on again,
        so that no more memory is ever written to than is needed.
        """
        self._cached.clear()
        self._keys.clear()
        self._free = OrderedDict.fromkeys(sorted(self._free))

    def free(self, blocks: Sequence[int]) -> None:
        """Give up these blocks. The end of a prefix is evicted first."""
        for block in reversed(blocks):
            self._ref_counts[block] -= 1
            if not self._ref_counts[block]:
                self._free[block] = None
