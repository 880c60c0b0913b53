"""Times dense causal prefill of winnow beside PyTorch's SDPA backends: same tensors, checked first, rounds interleaved.

    python3 bench/peers/dense_prefill.py --library libwinnow_peers.so --output results.json

Every round times each contender once per shape, in an order reversed from round to round; the median over rounds is kept.
Needs a CUDA GPU and PyTorch. The library is built from winnow_c.cu beside this file.
"""
import argparse
import ctypes
import json
import math
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"flash_attention_2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def load(path):
    library = ctypes.CDLL(path)
    pointer, number = ctypes.c_void_p, ctypes.c_longlong
    library.winnow_attend_bf16.argtypes = [pointer] * 5 + [number] * 6 + [ctypes.c_int] * 3 + [pointer, number, pointer]
    return library


def winnow_attend(library, q, k, v, out, scratch, recent=-1, sinks=0):
    """Causal attention on [batch, token, head, channel] tensors."""
    batch, queries, heads, head_dim = q.shape
    code = library.winnow_attend_bf16(
        q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), None, batch, queries, k.shape[1], heads, k.shape[2],
        head_dim, 1, sinks, recent, scratch.data_ptr(), scratch.numel(), torch.cuda.current_stream().cuda_stream)
    if code:
        raise RuntimeError(f"winnow returned status {code}")


def sdpa(backend, q, k, v):
    """The same attention through PyTorch, on views of the same tensors."""
    with sdpa_kernel(backend):
        return torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True)


def check(library, q, k, v, out, scratch, rows=128):
    """Relative error of the last rows against fp64 attention: winnow's and FlashAttention-2's."""
    winnow_attend(library, q, k, v, out, scratch)
    tokens, heads, kv_heads = q.shape[1], q.shape[2], k.shape[2]
    worst = {"winnow": 0.0, "flash_attention_2": 0.0}
    peer = sdpa(BACKENDS["flash_attention_2"], q, k, v).transpose(1, 2)
    position = torch.arange(tokens - rows, tokens, device=q.device)
    hidden = torch.arange(tokens, device=q.device)[None, :] > position[:, None]
    for head in range(0, heads, max(1, heads // 4)):
        kv = head // (heads // kv_heads)
        scores = q[0, -rows:, head].double() @ k[0, :, kv].double().T / math.sqrt(q.shape[3])
        exact = torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ v[0, :, kv].double()
        for name, result in (("winnow", out), ("flash_attention_2", peer)):
            error = ((result[0, -rows:, head].double() - exact).norm() / exact.norm()).item()
            worst[name] = max(worst[name], error)
    return worst


def time_once(call, repeats):
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / repeats


def measure(library, tokens, heads, kv_heads, head_dim, rounds):
    torch.manual_seed(tokens)
    make = lambda h: torch.randn(1, tokens, h, head_dim, device="cuda", dtype=torch.bfloat16)
    q, k, v = make(heads), make(kv_heads), make(kv_heads)
    out = torch.full_like(q, math.nan)
    scratch = torch.empty(1 << 20, device="cuda", dtype=torch.uint8)
    errors = check(library, q, k, v, out, scratch)
    if not errors["winnow"] <= 2 * errors["flash_attention_2"]:
        raise RuntimeError(f"wrong output at {tokens} tokens: {errors}")
    calls = {"winnow": lambda: winnow_attend(library, q, k, v, out, scratch)}
    calls |= {name: (lambda backend=backend: sdpa(backend, q, k, v)) for name, backend in BACKENDS.items()}
    repeats = max(1, int(2e8 / tokens**2 * 10))
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for index in range(rounds):
        for name in sorted(calls, reverse=index % 2 == 1):
            times[name].append(time_once(calls[name], repeats))
    flops = 4 * heads * head_dim * tokens * (tokens + 1) / 2
    row = {"operator": "attend", "case": "dense causal prefill", "tokens": tokens, "heads": heads, "kv_heads": kv_heads,
           "head_dim": head_dim, "dtype": "bf16", "rounds": rounds, "relative_error": errors, "contenders": {}}
    for name, samples in times.items():
        median = statistics.median(samples)
        row["contenders"][name] = {"ms": median, "tflops": flops / median / 1e9,
                                   "spread_percent": 100 * (max(samples) - min(samples)) / median}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    library = load(arguments.library)
    rows = []
    for tokens in arguments.tokens:
        row = measure(library, tokens, arguments.heads, arguments.kv_heads, arguments.head_dim, arguments.rounds)
        rows.append(row)
        cells = [f"{name} {c['ms']:.3f} ms {c['tflops']:.0f} TFLOP/s (spread {c['spread_percent']:.1f} %)"
                 for name, c in row["contenders"].items()]
        ratio = row["contenders"]["flash_attention_2"]["ms"] / row["contenders"]["winnow"]["ms"]
        print(f"{tokens:7d} tokens: " + ", ".join(cells) + f", winnow / flash_attention_2 speed {ratio:.3f}", flush=True)
    if arguments.output:
        with open(arguments.output, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
