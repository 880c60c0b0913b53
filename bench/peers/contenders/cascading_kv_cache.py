"""The released code of Cascading KV Cache (GitHub, jeffwillette/cascading_kv_cache, its root importable as `cascade`): its
attention kernel with scores and its insertion, chunk by chunk, in fp16, which its kernel insists on. Rotary embedding is
left out, which its own layer does between the two."""
from unittest import mock

import torch

from contenders import import_error

NAME = "cascading_kv_cache"


def available():
    return _modules()[1]


def _modules():
    """Its cache and attention modules, or why there are none. Its cache derives from transformers' of its day, whose
    methods it replaces; later ones have properties in the way."""
    reason = import_error("transformers.cache_utils")
    if reason:
        return None, reason
    import transformers.cache_utils
    with mock.patch.object(transformers.cache_utils, "Cache", type("Cache", (), {})):
        reason = import_error("cascade.models.cascading_cache", "cascade.models.flash_attention")
    if reason:
        return None, reason
    from cascade.models import cascading_cache, flash_attention
    return (cascading_cache, flash_attention), None


def cascade_prefill(q, k, v, chunk, slots, levels, sinks):
    (cascading_cache, flash_attention), _ = _modules()
    heads, kv_heads, channels = q.shape[2], k.shape[2], q.shape[3]
    cache = cascading_cache.CascadingKVCache(
        window_length=slots // levels, num_sink_tokens=sinks, max_batch_size=q.shape[0], heads=kv_heads, dim=channels,
        max_seq_len=slots, device=q.device, dtype=torch.float16, layers=1, verbose=False)
    q, k, v = (x.half().transpose(1, 2).contiguous() for x in (q, k, v))

    def every_head(*parts):
        return torch.cat([x.repeat_interleave(heads // kv_heads, 1) for x in parts], 2)

    def call():
        cache.reset(verbose=False)
        outputs = []
        for first in range(0, q.shape[2], chunk):
            rows, keys, values = (x[:, :, first:first + chunk] for x in (q, k, v))
            sink_keys, sink_values, _, sink_mask, slot_keys, slot_values, _, mask, _ = cache.get_vals(0)
            out, scores = flash_attention.attention(
                rows, every_head(sink_keys, slot_keys, keys), every_head(sink_values, slot_values, values), True,
                channels**-0.5, torch.cat((sink_mask[0, 0], mask[0, 0])), cache.beta)
            outputs.append(out)
            means = scores.unflatten(1, (kv_heads, heads // kv_heads)).mean(2)
            cache.score_cache[0] = cache.beta**keys.shape[2] * cache.score_cache[0] + means[:, :, sinks:sinks + slots]
            cache.update(keys, values, 0, score_states=means[:, :, -keys.shape[2]:].contiguous())
        return torch.cat(outputs, 2).transpose(1, 2)

    return {f"{NAME}_{chunk}": call}
