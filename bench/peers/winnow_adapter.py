"""Winnow on PyTorch tensors, through the C library of examples/c_api. The only file here that knows its interface."""
import pathlib
import subprocess
import sys

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "c_api"))
import winnow as c_api  # noqa: E402  the structs of libwinnow.so


def build(folder, architecture):
    """Builds libwinnow.so for a compute capability such as (9, 0)."""
    number = f"{architecture[0]}{architecture[1]}" + ("a" if architecture[0] >= 9 else "")
    subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", "-DWINNOW_CUDA=ON",
                    "-DWINNOW_BUILD_TESTS=OFF", "-DWINNOW_BUILD_BENCH=OFF",
                    f"-DWINNOW_CUDA_ARCHITECTURES={number}-real"], check=True)
    subprocess.run(["cmake", "--build", str(folder), "--parallel", "--target", "winnow_c_api"], check=True)
    return folder / "examples" / "c_api" / "libwinnow.so"


class Winnow:
    """Calls on packed bf16 tensors [batch, token, head, channel], each with its params and its workspace made once."""

    def __init__(self, path):
        self.functions = c_api.Library(str(path))
        self.device = self.functions.query_device(torch.cuda.current_device())

    def _bind(self, params_type, q, k, v, keep=(), within=lambda p: p, **fields):
        """A function that launches on the current stream and returns the output; it may be captured in a CUDA graph.
        `within` makes the params of an operator that builds on others."""
        out = torch.full_like(q, float("nan"))
        p = within(params_type(dtype=c_api.BF16, queries=c_api.tensor_of(q), keys=c_api.tensor_of(k),
                               values=c_api.tensor_of(v), output=c_api.tensor_of(out), scale=q.shape[3] ** -0.5,
                               **fields))
        needed = self.functions.workspace_bytes(p, self.device)
        scratch = torch.empty(needed, device=q.device, dtype=torch.uint8)

        def call(keep=(q, k, v, *keep)):  # the tensors live as long as the call
            self.functions.launch(p, self.device, scratch.data_ptr() if needed else None, needed,
                                torch.cuda.current_stream().cuda_stream)
            return out

        return call

    def dense(self, q, k, v, causal=True):
        """Dense attention; causal: the queries are the last rows of the context, so one query is a decode step."""
        mask = c_api.Mask(c_api.CAUSAL if causal else c_api.FULL, c_api.END_ALIGNED)
        return self._bind(c_api.AttendParams, q, k, v, mask=mask)

    def window(self, q, k, v, window, sinks):
        """Causal attention to `sinks` first and `window` last keys."""
        return self._bind(c_api.AttendParams, q, k, v, window=c_api.Window(sinks, window))

    def delta(self, q, k, v, gamma, window, sinks):
        """The same, corrected from dense rows every `gamma`."""
        options = c_api.DeltaOptions(gamma=gamma)
        return self._bind(c_api.AttendParams, q, k, v, window=c_api.Window(sinks, window),
                          within=lambda base: c_api.DeltaParams(dtype=c_api.BF16, base=base, options=options))

    def sparse_prefill(self, q, k, v, list_heads, gamma=0):
        """Pruning with the hip_3k preset and attention; `list_heads` 1 or the number of KV heads; gamma 0: as it is,
        without correction."""
        sharing = c_api.PER_BATCH if list_heads == 1 else c_api.PER_KV_GROUP
        return self._bind(c_api.SparsePrefillParams, q, k, v, method=self.functions.method("hip_3k", sharing=sharing),
                          delta=c_api.DeltaOptions(gamma=gamma))

    def listed(self, q, k, v, lists, page=0):
        """Causal attention over block lists alone (lists.Lists). With `page`, keys and values are copied to shuffled pages
        of so many tokens. The library wants room for one query block more than aligned rows touch."""
        blocks = torch.nn.functional.pad(lists.blocks, (0, 0, 0, 1)).contiguous()[:, None]
        counts = torch.nn.functional.pad(lists.counts, (0, 1)).contiguous()[:, None]
        selection = c_api.Selection(c_api.tensor_of(blocks), c_api.tensor_of(counts), lists.block_size,
                                    lists.query_block, None)
        kept, fields = [blocks, counts], {}
        if page:
            tokens = k.shape[1]
            table = torch.randperm(tokens // page, device=k.device).int()
            length = torch.full((1,), tokens, device=k.device, dtype=torch.int32)
            paged = [torch.empty(tokens // page, page, *x.shape[2:], device=x.device, dtype=x.dtype) for x in (k, v)]
            for to, x in zip(paged, (k, v)):
                to[table.long()] = x[0].reshape(to.shape)
            k, v = paged
            kept += [table, length]
            fields["kv"] = c_api.KvIndex(layout=c_api.BLOCK_TABLE, max_length=tokens, length=length.data_ptr(),
                                         pages=table.data_ptr(), table_stride=table.numel())
        return self._bind(c_api.AttendParams, q, k, v, kept, window=c_api.Window(0, 0), selection=selection, **fields)

    def cascade_prefill(self, q, k, v, chunk, theta, slots, levels, sinks):
        """A whole prompt, chunk by chunk, through an empty cascading cache; `theta` 0: without rotary embedding."""
        cache = c_api.CascadeCache(layout=self.functions.cascade_layout(sinks, slots, levels), sequences=q.shape[0],
                                   kv_heads=k.shape[2], head_dim=q.shape[3])
        memory = torch.zeros(self.functions.cascade_cache_bytes(cache, c_api.BF16), device=q.device, dtype=torch.uint8)
        cache.memory = memory.data_ptr()
        prefill = self._bind(c_api.CascadePrefillParams, q, k, v, (memory,), cache=cache, chunk=chunk,
                             rotation=c_api.Rope(theta=theta), scorer=c_api.CascadeScorer(beta=0.9999))

        def call():
            for sequence in range(q.shape[0]):
                self.functions.cascade_reset(cache, c_api.BF16, sequence, torch.cuda.current_stream().cuda_stream)
            return prefill()

        return call

    def sparse_decode(self, q, k, v, intervals):
        """A decode step with the hip_3k preset, and the step counters [batch] that a caller may set between calls."""
        method, slots = self.functions.method("hip_3k"), q.shape[0]
        step = torch.zeros(slots, device=q.device, dtype=torch.int32)
        entries = self.functions.stage_cache_entries(method, q.shape[2], k.shape[2], slots)
        lists = torch.zeros(entries, device=q.device, dtype=torch.int32)
        every = self.functions.intervals()
        every.steps[:len(intervals)] = intervals
        cache = c_api.StageCache(step.data_ptr(), lists.data_ptr(), None, slots, every)
        return self._bind(c_api.SparseDecodeParams, q, k, v, (step, lists), method=method, cache=cache), step
