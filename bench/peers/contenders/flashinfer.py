"""FlashInfer: dense prefill and decode of one request."""
from contenders import import_error

NAME = "flashinfer"


def available():
    return import_error("flashinfer")


def dense_prefill(q, k, v, causal=True):
    import flashinfer
    return {NAME: lambda: flashinfer.single_prefill_with_kv_cache(q[0], k[0], v[0], causal=causal)[None]}


def dense_decode(q, k, v):
    import flashinfer
    if q.shape[0] > 1:
        raise ValueError("one request only")
    # With tensor cores: better for groups of query heads.
    decode = flashinfer.single_decode_with_kv_cache
    return {NAME: lambda: decode(q[0, 0], k[0], v[0], use_tensor_cores=True)[None, None]}
