"""Upstream HiP attention (hip-attn on PyPI, v1.2), 3K preset: 256 sinks, 1024 recent and 2048 selected keys.

Version 1.2.4 imports with Triton 3.6; 1.2.9 insists on Triton 3.4.
"""
import dataclasses
import math

import torch

from contenders import import_error

NAME = "hip_attn"


def available():
    return import_error("hip_attn.v1_2.attention_extend", "hip_attn.v1_2.attention_metadata")


def _known(kind, **fields):
    """Of the fields, those that the installed version has."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in fields.items() if name in names}


def settings(q, k, **more):
    """Its arguments: the 3K preset but for `more`."""
    from hip_attn.v1_2.attention_metadata import HiPAttentionArgs, ScanStage
    # The default stages of the arguments are hip_3k's: chunks of 256, 32 and 8 keys, 128, 256 and 256 of them kept.
    stages = [ScanStage(stage_block_size_q=64, stage_block_stride_q=stride, stage_chunk_size=chunk, stage_k=keys,
                        stage_stride=1, **_known(ScanStage, using_landmark=False))
              for stride, chunk, keys in ((4, 256, None), (4, 32, 32768), (1, 8, 8192))]
    positions = torch.arange(k.shape[1] - q.shape[1], k.shape[1], device=q.device)[None].expand(q.shape[0], -1)
    preset = {"sink_token_size": 256, "sliding_window_size": 1024, "block_size_k": 64, "second_stage_k": 2048}
    return HiPAttentionArgs(position_ids=positions, stages=stages, model_context_length=k.shape[1],
                            extend_context_length=k.shape[1], require_cache_statistics=False, **(preset | more),
                            **_known(HiPAttentionArgs, using_landmark=False, is_decode=q.shape[1] == 1))


def scaled(q):
    """The kernels take scores as they are, so the caller scales the queries."""
    return (q.float() / math.sqrt(q.shape[3])).to(q.dtype)


def hip_prefill(q, k, v):
    from hip_attn.v1_2.attention_extend import dual_stage_quadratic_hip_attention as attention
    rows, arguments = scaled(q), settings(q, k, require_stage_caches=False)
    return {NAME: lambda: attention(rows, k, v, arguments)[0]}


def hip_decode(q, k, v):
    from hip_attn.v1_2.attention_extend import dual_stage_quadratic_hip_attention as attention
    from hip_attn.v1_2.attention_metadata import HiPAttentionOutputMetadata
    rows = scaled(q)
    fresh, keeping = settings(q, k, require_stage_caches=False), settings(q, k)
    _, full = attention(rows, k, v, keeping)

    def with_cached(stages):
        def call():
            # A new list for every call: what stages after the cached ones find is appended to it.
            cached = HiPAttentionOutputMetadata(None, None, None, None, None, None,
                                                stage_caches=list(full.stage_caches[:stages + 1]))
            return attention(rows, k, v, keeping, cached)[0]
        return call

    calls = [lambda: attention(rows, k, v, fresh)[0], with_cached(1), with_cached(2),
             lambda: attention(rows, k, v, keeping, full)[0]]
    return {f"{NAME}/stages_cached:{n}": call for n, call in enumerate(calls)}
