"""PyTorch's scaled_dot_product_attention with its cuDNN and FlashAttention-2 backends."""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

NAME = "sdpa"
BACKENDS = {"flash_attention_2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def available():
    return None


def _call(backend, q, k, v, causal):
    def call():
        with sdpa_kernel(backend):
            out = torch.nn.functional.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal, enable_gqa=True)
        return out.transpose(1, 2)
    return call


def dense_prefill(q, k, v, causal=True):
    return {name: _call(backend, q, k, v, causal) for name, backend in BACKENDS.items()}


def dense_decode(q, k, v):
    # One query sees all keys; is_causal would align it with the first.
    return {name: _call(backend, q, k, v, False) for name, backend in BACKENDS.items()}
