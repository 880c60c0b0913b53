"""The released code of Delta Attention (GitHub, jeffwillette/delta-attention): hip-attn's kernel for window and sinks, its
own for anchors and tail, the difference by PyTorch. Its tail is at least 128 rows."""
import torch

from contenders import import_error
from contenders.hip_attn import scaled, settings

NAME = "delta_attention"


def available():
    return import_error("hip_attn.v1_2.attention_extend_bsa", "delta_attention.delta_kernel")


def _window(q, k, v, window, sinks):
    from hip_attn.v1_2.attention_extend_bsa import block_sparse_attention
    arguments = settings(q, k, sliding_window_size=window, sink_token_size=sinks, second_stage_k=0, block_size_q=64,
                         block_size_k=8, sliding_window_indices=None)
    blocks, heads = -(-q.shape[1] // 64), q.shape[0] * q.shape[2]
    none = torch.zeros((heads, blocks), dtype=torch.int64, device=q.device)
    return block_sparse_attention(
        q=scaled(q), k=k, v=v, seq_lens=arguments.position_ids + 1, indices=none[..., None][..., :0], ks=none,
        ks_count=none[..., None], ks_start_end=torch.stack([none, none], -1), args=arguments, access_counter=None,
        cache_miss_counter=None, model_context_length=k.shape[1], extend_context_length=10 * k.shape[1],
        offload_update_cache=False)


def delta_prefill(q, k, v, gamma, window, sinks):
    from delta_attention.delta_kernel import attention
    batch, tokens, heads, channels = q.shape
    tail = tokens % gamma + max(128, gamma)
    corrected = tokens - tail
    anchors = torch.arange(0, corrected, gamma, device=q.device)
    dense_rows = torch.cat([anchors, torch.arange(corrected, tokens, device=q.device)])

    def call():
        sparse = _window(q, k, v, window, sinks)[:, :corrected]
        every_head = [x.repeat_interleave(heads // k.shape[2], 2).transpose(1, 2) for x in (k, v)]
        dense = attention(q[:, dense_rows].transpose(1, 2), *every_head, dense_rows[None], channels**-0.5)
        dense = dense.transpose(1, 2)
        difference = dense[:, :anchors.numel()] - sparse[:, anchors]
        groups = sparse.reshape(batch, anchors.numel(), gamma, heads, channels) + difference[:, :, None]
        return torch.cat([groups.reshape(batch, corrected, heads, channels), dense[:, anchors.numel():]], 1)

    return {NAME: call}
