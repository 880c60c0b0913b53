"""Random block lists, one for all heads of a query block: what winnow and FlexAttention read alike."""
import dataclasses

import torch


@dataclasses.dataclass
class Lists:
    """Ascending ids; the last of each list is the diagonal block, all others lie wholly before the query block."""
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
        earlier = int((self.counts - 1).sum()) * self.block_size * self.query_block
        diagonal = self.counts.numel()
        return (earlier + diagonal * self.query_block * (self.query_block + 1) // 2,
                earlier + diagonal * self.block_size * self.query_block)


def random_lists(tokens, budget, block=128, device="cuda", seed=7):
    """`budget` keys a row where there are as many; query blocks are as long as key blocks."""
    if tokens % block:
        raise ValueError("whole blocks only")
    generator = torch.Generator().manual_seed(seed)
    count, capacity = tokens // block, budget // block
    blocks, counts = torch.zeros(1, count, capacity, dtype=torch.int32), torch.zeros(1, count, dtype=torch.int32)
    for m in range(count):
        earlier = torch.randperm(m, generator=generator)[:capacity - 1].sort().values
        counts[0, m] = len(earlier) + 1
        blocks[0, m, :len(earlier)] = earlier
        blocks[0, m, len(earlier)] = m
    return Lists(blocks.to(device), counts.to(device), count, block, block)
