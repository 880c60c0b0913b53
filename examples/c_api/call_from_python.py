#!/usr/bin/env python3
"""Calls libwinnow.so from Python, with no tensor library: attention over two halves of the keys, merged; a step of
sparse decode over an fp8 cache; pruning by summaries of keys.

    python3 examples/c_api/call_from_python.py build/gpu/examples/c_api/libwinnow.so

Without a GPU: versions, bad input, workspace queries. With one, device memory comes from PyTorch if it is installed, else
from the CUDA runtime (WINNOW_CUDART, or libcudart.so where the loader finds it); the results are compared with plain loops.
Exit 0 if all is as it should be.
"""
import ctypes
import ctypes.util
import math
import os
import random
import struct
import sys

import winnow

HEADS, KV_HEADS, HEAD_DIM, ROWS, KEYS = 4, 2, 64, 3, 96
STAND_IN = 4096  # for a pointer where nothing is read
failures = 0


def expect(condition, what):
    global failures
    failures += not condition
    print(f"{what:<58} {'ok' if condition else 'FAILED'}")


def refused(call, code, text):
    """The call must raise this error."""
    try:
        call()
    except winnow.WinnowError as error:
        print(f"    {error}")
        return error.code == code and text in str(error)
    return False


def attention(q, k, v, o, lse, rows, keys, mask):
    """Params of attention of `rows` queries over `keys` keys; pointers are device memory."""
    return winnow.AttendParams(
        dtype=winnow.BF16, queries=winnow.tensor(q, [1, rows, HEADS, HEAD_DIM]),
        keys=winnow.tensor(k, [1, keys, KV_HEADS, HEAD_DIM]), values=winnow.tensor(v, [1, keys, KV_HEADS, HEAD_DIM]),
        output=winnow.tensor(o, [1, rows, HEADS, HEAD_DIM]), scale=HEAD_DIM**-0.5, mask=mask,
        lse=winnow.Lse(winnow.tensor(lse, [1, rows, HEADS]), winnow.NATURAL))


def merging(parts, sums, o):
    """Params of the merge of two parts."""
    return winnow.MergeParams(
        dtype=winnow.BF16, outputs=winnow.tensor(parts, [2, ROWS, HEADS, HEAD_DIM]),
        lses=winnow.tensor(sums, [2, ROWS, HEADS]), base=winnow.NATURAL, output=winnow.tensor(o, [ROWS, HEADS, HEAD_DIM]))


def check_without_device(library):
    device = library.example_device()
    expect(refused(lambda: library.check(library.functions.winnow_check_abi(winnow.ABI_VERSION + 1)), winnow.WRONG_ABI,
                   "version"), "another ABI version is refused")
    full = winnow.Mask(winnow.FULL, winnow.END_ALIGNED)
    p = attention(*[STAND_IN] * 5, ROWS, KEYS, full)
    print(f"attention of {ROWS} rows: {library.workspace_bytes(p, device)} bytes of workspace")
    p.struct_size += 8
    expect(refused(lambda: library.launch(p, device), winnow.WRONG_ABI, "struct_size"), "another struct size is refused")
    p = attention(STAND_IN + 8, *[STAND_IN] * 4, ROWS, KEYS, full)
    expect(refused(lambda: library.launch(p, device), 4, "queries.data must be 16-byte aligned"),
           "a misaligned tensor is refused")
    # Pruning says what it will write before there is memory for it.
    method = library.method("hip_3k", sharing=winnow.PER_KV_GROUP)
    prune = winnow.PruneParams(dtype=winnow.FP16, queries=winnow.tensor(STAND_IN, [1, 8192, 32, 128]),
                               keys=winnow.tensor(STAND_IN, [1, 8192, 8, 128]), method=method)
    extents = library.prune_extents(prune)
    expect(extents == [1, 8, 129, 256], f"lists of hip_3k for 8192 rows: {extents}")
    prune.selection = winnow.Selection(winnow.tensor(STAND_IN, extents), winnow.tensor(STAND_IN, extents[:3]), 8, 64)
    print(f"pruning 8192 rows: {library.workspace_bytes(prune, device)} bytes of workspace")
    slots = 16
    decode = winnow.SparseDecodeParams(
        dtype=winnow.BF16, queries=winnow.tensor(STAND_IN, [4, 1, 32, 128]), method=method,
        keys=winnow.tensor(STAND_IN, [1024, 64, 8, 128]), values=winnow.tensor(STAND_IN, [1024, 64, 8, 128]),
        kv=winnow.KvIndex(layout=winnow.BLOCK_TABLE, length=STAND_IN, pages=STAND_IN, table_stride=512, max_length=32768),
        cache=winnow.StageCache(STAND_IN, STAND_IN, STAND_IN, slots, library.intervals("fast")),
        output=winnow.tensor(STAND_IN, [4, 1, 32, 128]), scale=128**-0.5)
    print(f"decoding 4 requests of 32768 keys: {library.workspace_bytes(decode, device)} bytes of workspace, "
          f"{library.stage_cache_entries(method, 32, 8, slots)} int32 of lists")
    # Means of chunks, kept beside the cache, for the scorer that ranks by them.
    means = library.method("hip_tiny", scorer=winnow.MEAN_KEY)
    elements = library.summary_elements(means, 8, 128, slots, 32768)
    expect(elements == slots * ((32768 - 16) // 32 + (32768 - 16) // 8) * 8 * 128, f"summaries: {elements} elements")
    summarise = winnow.SummariseParams(
        dtype=winnow.BF16, keys=decode.keys, kv=decode.kv, batch=4, method=means,
        summary=winnow.KeySummary(STAND_IN, slots, 32768, STAND_IN))
    expect(library.workspace_bytes(summarise, device) == 0, "summaries take no workspace")
    summarise.method.scorer = winnow.TREE_PROBE
    expect(refused(lambda: library.workspace_bytes(summarise, device), 5, "summary.data is for the scorers mean_key"),
           "summaries for a scorer that reads single keys are refused")
    append = winnow.AppendParams(
        dtype=winnow.BF16, keys=winnow.tensor(STAND_IN, [4, 8, 128]), values=winnow.tensor(STAND_IN, [4, 8, 128]),
        key_cache=winnow.tensor(STAND_IN, [1024, 64, 8, 128]), value_cache=winnow.tensor(STAND_IN, [1024, 64, 8, 128]),
        slot=STAND_IN, rotation=winnow.Rope(theta=1e4, pairing=winnow.HALVES))
    expect(refused(lambda: library.workspace_bytes(append, device), 1, "position must not be null"),
           "a rotation without positions is refused")
    append.position = STAND_IN
    expect(library.workspace_bytes(append, device) == 0, "appending takes no workspace")
    # An fp8 cache: half the bytes, with scales; what it does not serve is refused.
    decode.format = winnow.CacheFormat(winnow.AS_FP8_E4M3, 8, STAND_IN, STAND_IN)
    expect(library.workspace_bytes(decode, device) > 0, "decoding over an fp8 cache is accepted")
    decode.format.scale_heads = 3
    expect(refused(lambda: library.workspace_bytes(decode, device), 2, "scales.heads must be 1 or"),
           "scales for another number of heads are refused")
    decode.format.scale_heads, decode.method.scorer = 8, winnow.MEAN_KEY
    expect(refused(lambda: library.workspace_bytes(decode, device), 5, "method.scorer must be tree_probe or centre_probe"),
           "a scorer that reads no fp8 keys is refused")
    append.format.stored = 7
    expect(refused(lambda: library.workspace_bytes(append, device), 6, "format.stored"), "an unknown format is refused")
    # A cascading cache says how much memory it needs, too.
    cache = winnow.CascadeCache(layout=library.cascade_layout(64, 16384, 4), sequences=4, kv_heads=8, head_dim=128)
    print(f"cascading caches of 4 sequences: {library.cascade_cache_bytes(cache, winnow.BF16)} bytes")
    cache.memory = STAND_IN
    token = winnow.CascadeAttendParams(
        dtype=winnow.BF16, queries=winnow.tensor(STAND_IN, [4, 1, 32, 128]), cache=cache,
        keys=winnow.tensor(STAND_IN, [4, 1, 8, 128]), values=winnow.tensor(STAND_IN, [4, 1, 8, 128]),
        output=winnow.tensor(STAND_IN, [4, 1, 32, 128]), scores=winnow.tensor(STAND_IN, [4, 1, 8]), scale=128**-0.5)
    print(f"a token of each: {library.workspace_bytes(token, device)} bytes of workspace")
    token.scorer.beta = 2
    expect(refused(lambda: library.workspace_bytes(token, device), 6, "scorer.beta must lie in (0, 1]"),
           "scores that grow are refused")
    expect(refused(lambda: library.cascade_fork(cache, winnow.BF16, 0, 4), 6, "to must lie in [0, cache.sequences)"),
           "a sequence that is not there is refused")
    expect(refused(lambda: library.cascade_layout(64, 100, 3), 6, "slots must be a multiple of levels"),
           "a layout that does not come out even is refused")


# --- Device memory ---

class TorchMemory:
    """Device memory of PyTorch."""

    def __init__(self, torch):
        self.torch, self.kept = torch, []

    def put(self, data):
        self.kept.append(self.torch.frombuffer(bytearray(data), dtype=self.torch.uint8).cuda())
        return self.kept[-1].data_ptr()

    def get(self, pointer, count):
        found = next(tensor for tensor in self.kept if tensor.data_ptr() == pointer)
        return bytes(found[:count].cpu().numpy().tobytes())

    def stream(self):
        return self.torch.cuda.current_stream().cuda_stream


class RuntimeMemory:
    """Device memory of the CUDA runtime through ctypes."""

    def __init__(self, path):
        self.runtime = ctypes.CDLL(path)
        self.runtime.cudaMalloc.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t]
        self.runtime.cudaMemcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def must(self, code, call):
        if code:
            raise RuntimeError(f"{call} returned {code}")

    def put(self, data):
        pointer = ctypes.c_void_p()
        self.must(self.runtime.cudaMalloc(pointer, len(data)), "cudaMalloc")
        self.must(self.runtime.cudaMemcpy(pointer, bytes(data), len(data), 1), "cudaMemcpy to the device")
        return pointer.value

    def get(self, pointer, count):
        data = ctypes.create_string_buffer(count)
        self.must(self.runtime.cudaMemcpy(data, pointer, count, 2), "cudaMemcpy to the host")  # waits for the kernels
        return data.raw

    def stream(self):
        return None


def device_memory():
    """Either of the two, or None."""
    try:
        import torch
        if torch.cuda.is_available():
            return TorchMemory(torch)
    except ImportError:
        pass
    names = [os.environ.get("WINNOW_CUDART"), ctypes.util.find_library("cudart"), "libcudart.so"]
    for name in filter(None, names):
        try:
            return RuntimeMemory(name)
        except OSError:
            continue
    return None


# --- bf16 and the plain loops ---

def bf16_bytes(values):
    """Values that bf16 holds exactly."""
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def bf16_values(data):
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def plain_attention(q, k, v):
    """Every query against every key, in double precision."""
    output = []
    for row in range(ROWS):
        for head in range(HEADS):
            kv = head // (HEADS // KV_HEADS)
            query = q[(row * HEADS + head) * HEAD_DIM:][:HEAD_DIM]
            at = [(key * KV_HEADS + kv) * HEAD_DIM for key in range(KEYS)]
            scores = [sum(a * b for a, b in zip(query, k[i:i + HEAD_DIM])) * HEAD_DIM**-0.5 for i in at]
            weights = [math.exp(score) for score in scores]
            output += [sum(w * v[i + c] for w, i in zip(weights, at)) / sum(weights) for c in range(HEAD_DIM)]
    return output


def check_on_device(library, device, memory):
    generator = random.Random(1)
    q, k, v = ([generator.randrange(-64, 64) / 64 for _ in range(count * HEAD_DIM)]
               for count in (ROWS * HEADS, KEYS * KV_HEADS, KEYS * KV_HEADS))
    device_q, device_k, device_v = (memory.put(bf16_bytes(x)) for x in (q, k, v))
    output_bytes, lse_bytes = ROWS * HEADS * HEAD_DIM * 2, ROWS * HEADS * 4
    parts, sums = memory.put(bytes(2 * output_bytes)), memory.put(bytes(2 * lse_bytes))
    whole, merged, unused = memory.put(bytes(output_bytes)), memory.put(bytes(output_bytes)), memory.put(bytes(lse_bytes))
    full, half, stream = winnow.Mask(winnow.FULL, winnow.END_ALIGNED), KEYS // 2, memory.stream()

    def run(params):
        needed = library.workspace_bytes(params, device)
        library.launch(params, device, memory.put(bytes(needed)) if needed else None, needed, stream)

    run(attention(device_q, device_k, device_v, whole, unused, ROWS, KEYS, full))
    for part in range(2):
        skip = part * half * KV_HEADS * HEAD_DIM * 2
        run(attention(device_q, device_k + skip, device_v + skip, parts + part * output_bytes, sums + part * lse_bytes,
                      ROWS, half, full))
    run(merging(parts, sums, merged))
    exact = plain_attention(q, k, v)
    for name, pointer in (("attention", whole), ("attention in two halves, merged", merged)):
        error = max(abs(a - b) for a, b in zip(bf16_values(memory.get(pointer, output_bytes)), exact))
        # Outputs are below 1: half a step of bf16 is 2^-9; weights, parts and result are rounded.
        expect(error <= 1 / 128, f"{name}: largest error {error:.1e}")


def check_fp8_on_device(library, device, memory):
    """Three requests look at the same page of an fp8 cache, each with a query of its own; lists hold all that is left."""
    generator = random.Random(2)
    q = [generator.randrange(-64, 64) / 64 for _ in range(ROWS * HEADS * HEAD_DIM)]
    k, v = ([generator.randrange(-8, 8) / 8 for _ in range(KEYS * KV_HEADS * HEAD_DIM)] for _ in range(2))
    cache_bytes, output_bytes, stream = KEYS * KV_HEADS * HEAD_DIM, ROWS * HEADS * HEAD_DIM * 2, memory.stream()
    scales = [memory.put(struct.pack("<2f", *pair)) for pair in ((0.5, 2), (0.25, 1))]
    form = winnow.CacheFormat(winnow.AS_FP8_E4M3, KV_HEADS, *scales)
    caches = [winnow.tensor(memory.put(bytes(cache_bytes)), [1, KEYS, KV_HEADS, HEAD_DIM]) for _ in range(2)]
    library.launch(winnow.AppendParams(
        dtype=winnow.BF16, keys=winnow.tensor(memory.put(bf16_bytes(k)), [KEYS, KV_HEADS, HEAD_DIM]),
        values=winnow.tensor(memory.put(bf16_bytes(v)), [KEYS, KV_HEADS, HEAD_DIM]), key_cache=caches[0],
        value_cache=caches[1], slot=memory.put(struct.pack(f"<{KEYS}q", *range(KEYS))), format=form), device, stream=stream)
    method, output = library.method("hip_tiny"), memory.put(bytes(output_bytes))
    lists = memory.put(bytes(4 * library.stage_cache_entries(method, HEADS, KV_HEADS, ROWS)))
    decode = winnow.SparseDecodeParams(
        dtype=winnow.BF16, queries=winnow.tensor(memory.put(bf16_bytes(q)), [ROWS, 1, HEADS, HEAD_DIM]), keys=caches[0],
        values=caches[1], method=method, scale=HEAD_DIM**-0.5, format=form,
        kv=winnow.KvIndex(layout=winnow.BLOCK_TABLE, length=memory.put(struct.pack(f"<{ROWS}i", *[KEYS] * ROWS)),
                          pages=memory.put(struct.pack(f"<{ROWS}i", *[0] * ROWS)), table_stride=1, max_length=KEYS),
        cache=winnow.StageCache(memory.put(bytes(4 * ROWS)), lists, None, ROWS, library.intervals()),
        output=winnow.tensor(output, [ROWS, 1, HEADS, HEAD_DIM]))
    needed = library.workspace_bytes(decode, device)
    library.launch(decode, device, memory.put(bytes(needed)), needed, stream)
    error = max(abs(a - b) for a, b in zip(bf16_values(memory.get(output, output_bytes)), plain_attention(q, k, v)))
    expect(error <= 1 / 128, f"sparse decode over an fp8 cache: largest error {error:.1e}")


def check_summaries_on_device(library, device, memory):
    """Pruning by means: the lists are the same whether it reads all keys of a chunk or their mean."""
    generator, keys, stream = random.Random(3), 512, memory.stream()
    q, k = ([generator.randrange(-64, 64) / 64 for _ in range(count * HEAD_DIM)] for count in (16 * HEADS, keys * KV_HEADS))
    method = library.method("hip_tiny", scorer=winnow.MEAN_KEY, sharing=winnow.PER_KV_GROUP)
    prune = winnow.PruneParams(
        dtype=winnow.BF16, queries=winnow.tensor(memory.put(bf16_bytes(q)), [1, 16, HEADS, HEAD_DIM]), method=method,
        keys=winnow.tensor(memory.put(bf16_bytes(k)), [1, keys, KV_HEADS, HEAD_DIM]))
    extents = library.prune_extents(prune)
    entries = math.prod(extents)

    def lists():
        blocks, counts = memory.put(bytes(4 * entries)), memory.put(bytes(4 * math.prod(extents[:3])))
        prune.selection = winnow.Selection(winnow.tensor(blocks, extents), winnow.tensor(counts, extents[:3]),
                                           method.stages[1].chunk, method.stages[1].query_block)
        needed = library.workspace_bytes(prune, device)
        library.launch(prune, device, memory.put(bytes(needed)), needed, stream)
        return struct.unpack(f"<{entries}i", memory.get(blocks, 4 * entries))

    without = lists()
    elements = library.summary_elements(method, KV_HEADS, HEAD_DIM, 1, keys)
    prune.summary = winnow.KeySummary(memory.put(bytes(2 * elements)), 1, keys, None)
    library.launch(winnow.SummariseParams(dtype=winnow.BF16, keys=prune.keys, batch=1, method=method,
                                          summary=prune.summary), device, stream=stream)
    expect(any(without) and lists() == without, "pruning by means: the same lists with summaries and without")


def main():
    library = winnow.Library(sys.argv[1] if len(sys.argv) > 1 else "./libwinnow.so")
    print(f"winnow {library.version}, ABI version {winnow.ABI_VERSION}")
    check_without_device(library)
    try:
        device = library.query_device(0)
    except winnow.WinnowError as error:
        print(f"no device, so no launch ({error})")
    else:
        memory = device_memory()
        if memory:
            check_on_device(library, device, memory)
            check_fp8_on_device(library, device, memory)
            check_summaries_on_device(library, device, memory)
        else:
            print("a device, but neither PyTorch nor libcudart.so (WINNOW_CUDART): no launch")
    print(f"{failures} FAILED" if failures else "all as it should be")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
