"""What the comparisons share: tensors, exact rows, the check of an output, timing in interleaved rounds."""
import math
import statistics
import time

import torch


def tensors_of(queries, keys, heads, kv_heads, head_dim, batch=1):
    """Random q, k, v as [batch, token, head, channel]; the same for the same extents."""
    torch.manual_seed(keys + queries)
    return [torch.randn(batch, n, h, head_dim, device="cuda", dtype=torch.bfloat16)
            for n, h in ((queries, heads), (keys, kv_heads), (keys, kv_heads))]


def exact_rows(q, k, v, head, rows, visible=None, request=0, causal=True):
    """The last rows of one head in fp64, and the same computed as bf16 hardware rounds it: weights and output in bf16.
    `visible` [rows, keys]: a mask on top of the causal one, or without that, of none."""
    keys, kv = k.shape[1], head // (q.shape[2] // k.shape[2])
    position = torch.arange(keys - rows, keys, device=q.device)
    hidden = (torch.arange(keys, device=q.device)[None, :] > position[:, None]) & causal
    if visible is not None:
        hidden |= ~visible
    scores = q[request, -rows:, head].double() @ k[request, :, kv].double().T / math.sqrt(q.shape[3])
    weights = torch.softmax(scores.masked_fill(hidden, -math.inf), -1)
    values = v[request, :, kv].double()
    return weights @ values, (weights.bfloat16().double() @ values).bfloat16().double()


def error_of(out, q, k, v, rows, visible=None, causal=True):
    """Largest relative error of the last `rows` of an output over a few heads of the last request, and what is allowed:
    twice the rounded computation's."""
    worst = allowed = 0.0
    for head in range(0, q.shape[2], max(1, q.shape[2] // 4)):
        exact, rounded = exact_rows(q, k, v, head, rows, visible, q.shape[0] - 1, causal)
        error = ((out[-1, -rows:, head].double() - exact).norm() / exact.norm()).item()
        worst = max(worst, error) if error == error else math.inf
        allowed = max(allowed, 2 * ((rounded - exact).norm() / exact.norm()).item())
    return worst, allowed


def check_all(calls, q, k, v, rows, visible=None, causal=True):
    """Errors of all calls. One with a wrong output leaves `calls` and is named among the refused; winnow's raises."""
    errors, refused = {}, {}
    for name in list(calls):
        try:
            worst, allowed = error_of(calls[name](), q, k, v, rows, visible, causal)
            if not worst <= allowed:
                raise RuntimeError(f"wrong output: relative error {worst:.2e}, allowed {allowed:.2e}")
            errors[name] = worst
        except Exception as error:  # a peer may fail in any way; that is its result
            if name.startswith("winnow"):
                raise
            refused[name] = f"{type(error).__name__}: {error}"[:300]
            del calls[name]
    return errors, refused


class Flush:
    """Overwrites three times the L2 cache, so that a call starts cold."""

    def __init__(self):
        size = torch.cuda.get_device_properties(0).L2_cache_size
        self.buffer = torch.empty(3 * size, device="cuda", dtype=torch.uint8)

    def __call__(self):
        self.buffer.fill_(60)


LEAD = 0.04  # seconds


def seconds_in_a_row(call, repeats, lead=LEAD):
    """Mean of calls one after the other: for calls of milliseconds. They follow `lead` seconds of the same call: at its
    power limit a GPU's clock depends on what ran last, and a contender must not gain or lose by its neighbour."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < lead:
        call()
        torch.cuda.synchronize()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        call()
    stop.record()
    stop.synchronize()
    return 1e-3 * start.elapsed_time(stop) / repeats


def seconds_cold(call, repeats, flush, before=None):
    """Mean of calls with a cold L2 cache each: for captured calls of microseconds, which queue behind the flush."""
    total = 0.0
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush()
        if before:
            before()
        start.record()
        call()
        stop.record()
        stop.synchronize()
        total += 1e-3 * start.elapsed_time(stop)
    return total / repeats


def captured(call):
    """The call as a CUDA graph, after a warm-up on another stream, which capturing asks for. It keeps the call, and with it
    the memory that the graph reads and writes: PyTorch would give that to the next tensor."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay(keep=call):
        graph.replay()
        return out

    return replay


def interleaved(timers, rounds):
    """`timers`: name -> function that gives seconds. Every round runs all, in an order reversed from round to round."""
    times = {name: [] for name in timers}
    for index in range(rounds):
        for name in sorted(timers, reverse=index % 2 == 1):
            times[name].append(timers[name]())
    return times


def summary(samples):
    median = statistics.median(samples)
    return {"ms": 1e3 * median, "spread_percent": 100 * (max(samples) - min(samples)) / median}


def collect(contenders, kind, *arguments):
    """Calls of all contenders that offer `kind`, by name, and why others that offer it refused."""
    calls, refused = {}, {}
    for module in contenders:
        if not hasattr(module, kind):
            continue
        try:
            calls |= getattr(module, kind)(*arguments)
        except Exception as error:
            refused[module.NAME] = f"{type(error).__name__}: {error}"[:300]
    return calls, refused
