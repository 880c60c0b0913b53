"""Times causal prefill of winnow beside PyTorch's SDPA backends: same tensors, checked first, rounds interleaved.

    cmake --preset gpu -DWINNOW_BUILD_TESTS=OFF -DWINNOW_BUILD_BENCH=OFF
    cmake --build --preset gpu --target winnow_c_api
    python3 bench/peers/prefill.py --library build/gpu/examples/c_api/libwinnow.so --output bench/results/h100_80gb_hbm3.json

Every round times each contender once per shape, in an order reversed from round to round; medians over the rounds are kept.
Needs a CUDA GPU and PyTorch. `bench/report.py` writes the tables of README.md and docs/performance.md from the result.
"""
import argparse
import datetime
import json
import math
import pathlib
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples/c_api"))
import winnow as c_api  # the structs of libwinnow.so

BACKENDS = {"flash_attention_2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


class Winnow:
    """The two calls on PyTorch tensors, with a workspace that is made once."""

    def __init__(self, path):
        self.library = c_api.Library(path)
        self.device = self.library.query_device(0)
        self.scratch = torch.empty(0, device="cuda", dtype=torch.uint8)
        self.needed = {}

    def call(self, params_type, q, k, v, out, **fields):
        q, k, v, out = (c_api.tensor_of(x) for x in (q, k, v, out))
        p = params_type(dtype=c_api.BF16, queries=q, keys=k, values=v, output=out, scale=q.extent[3] ** -0.5, **fields)
        case = (params_type, *q.extent, *k.extent, *(bytes(field) for field in fields.values()))
        if case not in self.needed:
            self.needed[case] = self.library.workspace_bytes(p, self.device)
            if self.needed[case] > self.scratch.numel():
                self.scratch = torch.empty(self.needed[case], device="cuda", dtype=torch.uint8)
        pointer = self.scratch.data_ptr() if self.needed[case] else None
        self.library.launch(p, self.device, pointer, self.needed[case], torch.cuda.current_stream().cuda_stream)

    def dense(self, q, k, v, out):
        self.call(c_api.AttendParams, q, k, v, out)

    def sparse(self, q, k, v, out, list_heads):
        sharing = c_api.PER_BATCH if list_heads == 1 else c_api.PER_KV_GROUP
        self.call(c_api.SparsePrefillParams, q, k, v, out, method=self.library.method("hip_3k", sharing=sharing))


def sdpa(backend, q, k, v):
    """The same attention through PyTorch, on views of the same tensors."""
    with sdpa_kernel(backend):
        return torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True)


def tensors_of(tokens, heads, kv_heads, head_dim):
    torch.manual_seed(tokens)
    return [torch.randn(1, tokens, h, head_dim, device="cuda", dtype=torch.bfloat16) for h in (heads, kv_heads, kv_heads)]


def exact_rows(q, k, v, head, rows):
    """The last rows of one head in fp64."""
    tokens, kv = q.shape[1], head // (q.shape[2] // k.shape[2])
    position = torch.arange(tokens - rows, tokens, device=q.device)
    hidden = torch.arange(tokens, device=q.device)[None, :] > position[:, None]
    scores = q[0, -rows:, head].double() @ k[0, :, kv].double().T / math.sqrt(q.shape[3])
    return torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ v[0, :, kv].double()


def errors_of(winnow, q, k, v, out, rows=128):
    """Largest relative error of the last rows over a few heads: winnow's and FlashAttention-2's."""
    winnow.dense(q, k, v, out)
    peer = sdpa(BACKENDS["flash_attention_2"], q, k, v).transpose(1, 2)
    worst = {"winnow": 0.0, "flash_attention_2": 0.0}
    for head in range(0, q.shape[2], max(1, q.shape[2] // 4)):
        exact = exact_rows(q, k, v, head, rows)
        for name, result in (("winnow", out), ("flash_attention_2", peer)):
            error = ((result[0, -rows:, head].double() - exact).norm() / exact.norm()).item()
            worst[name] = max(worst[name], error)
    if not worst["winnow"] <= 2 * worst["flash_attention_2"]:
        raise RuntimeError(f"wrong output: {worst}")
    return worst


def check_sparse(winnow, heads, kv_heads, head_dim, list_heads, tokens=2048):
    """Up to 3328 keys the hip_3k preset selects everything: its output must be dense attention's."""
    q, k, v = tensors_of(tokens, heads, kv_heads, head_dim)
    out = torch.full_like(q, math.nan)
    winnow.sparse(q, k, v, out, list_heads)
    exact = exact_rows(q, k, v, heads - 1, 128)
    error = ((out[0, -128:, -1].double() - exact).norm() / exact.norm()).item()
    if not error <= 0.01 or not torch.isfinite(out).all():
        raise RuntimeError(f"wrong sparse output: {error}")


def time_once(call, repeats):
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / repeats


def measure(winnow, case, tokens, heads, kv_heads, head_dim, rounds):
    q, k, v = tensors_of(tokens, heads, kv_heads, head_dim)
    out = torch.full_like(q, math.nan)
    errors = errors_of(winnow, q, k, v, out)
    calls = {"winnow": lambda: winnow.dense(q, k, v, out)}
    calls |= {name: (lambda backend=backend: sdpa(backend, q, k, v)) for name, backend in BACKENDS.items()}
    if case == "sparse":
        for sharing, list_heads in (("per_batch", 1), ("per_kv_group", kv_heads)):
            check_sparse(winnow, heads, kv_heads, head_dim, list_heads)
            calls[f"winnow_sparse_{sharing}"] = lambda list_heads=list_heads: winnow.sparse(q, k, v, out, list_heads)
    repeats = max(1, int(2e9 / tokens**2))
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for index in range(rounds):
        for name in sorted(calls, reverse=index % 2 == 1):
            times[name].append(time_once(calls[name], repeats))
    flops = 4 * heads * head_dim * tokens * (tokens + 1) / 2
    row = {"case": case, "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "dtype": "bf16",
           "rounds": rounds, "repeats": repeats, "relative_error": errors, "contenders": {}}
    for name, samples in times.items():
        median = statistics.median(samples)
        row["contenders"][name] = {"ms": median, "spread_percent": 100 * (max(samples) - min(samples)) / median}
        if "sparse" not in name:
            row["contenders"][name]["tflops"] = flops / median / 1e9
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--dense-tokens", type=int, nargs="*", default=[8192, 16384, 32768])
    parser.add_argument("--sparse-tokens", type=int, nargs="*", default=[32768, 131072])
    parser.add_argument("--head-dims", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    winnow, rows = Winnow(arguments.library), []
    shapes = [("dense", tokens, 32 if d < 256 else 16, 8 if d < 256 else 4, d)
              for d in arguments.head_dims for tokens in arguments.dense_tokens]
    shapes += [("sparse", tokens, 32, 8, 128) for tokens in arguments.sparse_tokens]
    for case, tokens, heads, kv_heads, head_dim in shapes:
        rounds = arguments.rounds if tokens <= 32768 else max(3, arguments.rounds // 3)
        row = measure(winnow, case, tokens, heads, kv_heads, head_dim, rounds)
        rows.append(row)
        print(f"{case} D {head_dim} {tokens}: " + ", ".join(f"{n} {c['ms']:.2f} ms" for n, c in row["contenders"].items()),
              flush=True)
    if arguments.output:
        record = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
                  "date": datetime.date.today().isoformat(), "prefill": rows}
        with open(arguments.output, "w") as file:
            json.dump(record, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
