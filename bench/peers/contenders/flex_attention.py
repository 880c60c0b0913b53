"""PyTorch's FlexAttention, compiled, with a block mask made from the same lists that winnow reads."""
import torch

from contenders import import_error

NAME = "flex_attention"
_compiled = {}


def available():
    return import_error("torch.nn.attention.flex_attention", "triton")


def block_mask_of(lists):
    """Full blocks need no mask function; the last entry of a list is the diagonal block, which the causal one cuts."""
    from torch.nn.attention.flex_attention import BlockMask
    if lists.block_size != lists.query_block:
        raise ValueError("blocks as long as query blocks only")
    counts = lists.counts[:, None]  # [1, 1, query block]
    columns = lists.key_blocks      # index tensors are [1, 1, query block, key blocks]
    padded = torch.nn.functional.pad(lists.blocks, (0, columns - lists.blocks.shape[2]))[:, None].contiguous()
    diagonal = torch.zeros_like(padded)
    diagonal[..., 0] = padded.gather(-1, (counts[..., None] - 1).long())[..., 0]
    return BlockMask.from_kv_blocks(torch.ones_like(counts), diagonal, counts - 1, padded, BLOCK_SIZE=lists.block_size,
                                    mask_mod=lambda b, h, row, key: row >= key)


def listed_prefill(q, k, v, lists):
    from torch.nn.attention.flex_attention import flex_attention
    compiled = _compiled.setdefault("flex", torch.compile(flex_attention, dynamic=False))
    mask = block_mask_of(lists)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return {NAME: lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True).transpose(1, 2)}
