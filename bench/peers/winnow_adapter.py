"""Winnow on PyTorch tensors: builds the C library and calls it. The only file that knows the library's interface."""
import ctypes
import pathlib
import shutil
import subprocess

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build(output, architecture):
    """Compiles the library for a compute capability such as (9, 0)."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    number = f"{architecture[0]}{architecture[1]}" + ("a" if architecture[0] >= 9 else "")
    subprocess.run([nvcc, "-std=c++20", "-O3", "-I", str(ROOT / "include"),
                    f"-gencode=arch=compute_{number},code=sm_{number}", "--shared", "-Xcompiler", "-fPIC",
                    "-o", str(output), str(ROOT / "bench" / "peers" / "winnow_c.cu")], check=True)
    return output


class Tensors(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("q", "k", "v", "out")] + [
        (name, ctypes.c_longlong) for name in ("batch", "queries", "keys", "heads", "kv_heads", "head_dim")]


class Winnow:
    """Calls on packed bf16 tensors [batch, token, head, channel], with a workspace that is made once per call."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        self.library.winnow_stage_cache_entries.restype = ctypes.c_longlong
        self.library.winnow_stage_cache_entries.argtypes = [ctypes.c_longlong] * 3
        pointer, number = ctypes.c_void_p, ctypes.c_longlong
        for name, extra in (("winnow_dense_prefill", []), ("winnow_sparse_prefill", [number]),
                            ("winnow_listed_prefill", [pointer, pointer] + [number] * 4),
                            ("winnow_sparse_decode", [pointer, pointer, ctypes.POINTER(ctypes.c_int * 3)])):
            function = getattr(self.library, name)
            function.restype = number
            function.argtypes = [ctypes.POINTER(Tensors), *extra, pointer, number, pointer]

    def _bind(self, name, q, k, v, out, *extra):
        """A function that launches on the current stream and returns `out`; it may be captured in a CUDA graph."""
        tensors = Tensors(q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), *q.shape[:2], k.shape[1],
                          q.shape[2], k.shape[2], q.shape[3])
        function = getattr(self.library, name)

        def launch(scratch, size):
            return function(ctypes.byref(tensors), *extra, scratch, size, torch.cuda.current_stream().cuda_stream)

        # Without scratch the call gives minus the bytes it wants, or runs if it wants none.
        needed = max(0, -launch(None, 0))
        scratch = torch.empty(needed, device=q.device, dtype=torch.uint8)

        def call(keep=(q, k, v, scratch)):  # the tensors live as long as the call
            code = launch(scratch.data_ptr() if needed else None, needed)
            if code:
                raise RuntimeError(f"{name} returned status {code}")
            return out

        return call

    def dense(self, q, k, v):
        """Dense causal attention; the queries are the last rows of the context, so one query is a decode step."""
        return self._bind("winnow_dense_prefill", q, k, v, torch.full_like(q, float("nan")))

    def sparse_prefill(self, q, k, v, list_heads):
        """Pruning with the hip_3k preset and attention; `list_heads` 1 or the number of KV heads."""
        return self._bind("winnow_sparse_prefill", q, k, v, torch.full_like(q, float("nan")), list_heads)

    def listed(self, q, k, v, blocks, counts, query_block, block_size):
        """Causal attention over block lists alone: `blocks` [1, query block, entry], `counts` [1, query block], int32.
        The library wants room for one query block more than aligned rows touch."""
        blocks = torch.nn.functional.pad(blocks, (0, 0, 0, 1)).contiguous()
        counts = torch.nn.functional.pad(counts, (0, 1)).contiguous()
        call = self._bind("winnow_listed_prefill", q, k, v, torch.full_like(q, float("nan")), blocks.data_ptr(),
                          counts.data_ptr(), blocks.shape[1], blocks.shape[2], query_block, block_size)
        return lambda keep=(blocks, counts): call()

    def sparse_decode(self, q, k, v, intervals):
        """A decode step with the hip_3k preset, and the step counters [batch] that a caller may set between calls."""
        step = torch.zeros(q.shape[0], device=q.device, dtype=torch.int32)
        entries = self.library.winnow_stage_cache_entries(q.shape[2], k.shape[2], q.shape[0])
        lists = torch.zeros(entries, device=q.device, dtype=torch.int32)
        steps = (ctypes.c_int * 3)(*intervals)
        call = self._bind("winnow_sparse_decode", q, k, v, torch.full_like(q, float("nan")), step.data_ptr(),
                          lists.data_ptr(), ctypes.byref(steps))
        return (lambda keep=(lists, steps): call()), step
