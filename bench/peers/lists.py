"""Random block lists, one for all heads of a query block: what winnow reads, and at blocks of 128 FlexAttention alike."""
import dataclasses

import torch


@dataclasses.dataclass
class Lists:
    """Ascending ids; the last of each list are the query block's own, all others lie wholly before it."""
    blocks: torch.Tensor  # int32 [1, query block, entry]; what stands behind a count is 0
    counts: torch.Tensor  # int32 [1, query block]
    key_blocks: int       # blocks of the context
    query_block: int
    block_size: int

    def visible(self, rows):
        """[rows, keys]: what the last rows may see. They lie in the last query block."""
        count = int(self.counts[0, -1])
        listed = torch.zeros(self.key_blocks, dtype=torch.bool, device=self.blocks.device)
        listed[self.blocks[0, -1, :count].long()] = True
        return listed.repeat_interleave(self.block_size)[None].expand(rows, -1)

    def pairs(self):
        """Query-key pairs that the rows see (the diagonal is half seen), and pairs of whole blocks."""
        own = self.query_block // self.block_size
        earlier = int((self.counts - own).sum()) * self.block_size * self.query_block
        diagonal = self.counts.numel()
        return (earlier + diagonal * self.query_block * (self.query_block + 1) // 2,
                earlier + diagonal * self.query_block * self.query_block)


def random_lists(tokens, budget, block=128, query_block=128, device="cuda", seed=7):
    """`budget` keys a row where there are as many, the query block's own among them."""
    if tokens % query_block or query_block % block or budget % block or budget < query_block:
        raise ValueError("whole blocks only")
    generator = torch.Generator().manual_seed(seed)
    count, capacity, own = tokens // query_block, budget // block, query_block // block
    blocks, counts = torch.zeros(1, count, capacity, dtype=torch.int32), torch.zeros(1, count, dtype=torch.int32)
    for m in range(count):
        earlier = torch.randperm(m * own, generator=generator)[:capacity - own].sort().values
        counts[0, m] = len(earlier) + own
        blocks[0, m, :len(earlier)] = earlier
        blocks[0, m, len(earlier):len(earlier) + own] = torch.arange(m * own, (m + 1) * own)
    return Lists(blocks.to(device), counts.to(device), tokens // block, query_block, block)
