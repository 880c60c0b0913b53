"""Decode: dense, and steps of the 3K preset with none to all of its stages cached."""
import torch

import measure

CACHED = 16  # interval of a cached stage: at step 1 it is not due
REPEATS = 20


def mean_of_states(contenders, prefix, intervals):
    """Mean step of a refresh cycle from its four states' times: what a peer without own bookkeeping would take."""
    counts = [0] * 4
    for step in range(intervals[0]):
        counts[next((i for i, n in enumerate(intervals) if step % n == 0), 3)] += 1
    return sum(n * contenders[f"{prefix}/stages_cached:{i}"]["ms"] for i, n in enumerate(counts)) / intervals[0]


def winnow_states(winnow, q, k, v):
    """Captured steps: name -> (replay, what to queue before it), and whole cycles: name -> (replay, reset, steps)."""
    states, cycles = {}, {}
    for cached in range(4):
        intervals = [CACHED if i < cached else 1 for i in range(3)]
        call, step = winnow.sparse_decode(q, k, v, intervals)
        step.zero_(), call()  # fills the lists
        states[f"winnow/stages_cached:{cached}"] = (measure.captured(call), lambda step=step: step.fill_(1))
    for intervals in ([32, 16, 8], [96, 24, 8]):
        call, step = winnow.sparse_decode(q, k, v, intervals)
        replay = measure.captured(call)
        cycles["winnow/mean:" + "_".join(map(str, intervals))] = (replay, step.zero_, intervals[0])
    return states, cycles


def preset_calls(winnow, contenders, q, k, v):
    """Plain calls for the check: winnow's step that refreshes everything, and all of the peers'."""
    call, _ = winnow.sparse_decode(q, k, v, [1, 1, 1])
    more, refused = measure.collect(contenders, "hip_decode", q, k, v)
    return {"winnow/stages_cached:0": call} | more, refused


def capture_all(calls, refused):
    """Replaces calls by their graphs; a peer that cannot be captured is refused."""
    for name in list(calls):
        try:
            calls[name] = measure.captured(calls[name])
        except Exception as error:
            if name.startswith("winnow"):
                raise
            refused[name] = f"{type(error).__name__}: {error}"[:300]
            del calls[name]


def measure_row(winnow, contenders, arguments, tokens, batch, heads=32, kv_heads=8, head_dim=128):
    flush = measure.Flush()
    small = measure.tensors_of(1, 3072, heads, kv_heads, head_dim, batch)
    checked, refused = preset_calls(winnow, contenders, *small)
    right, wrong = measure.check_all(checked, *small, 1)
    refused |= wrong

    q, k, v = measure.tensors_of(1, tokens, heads, kv_heads, head_dim, batch)
    calls, more = measure.collect(contenders, "dense_decode", q, k, v)
    refused |= more
    calls["winnow_dense"] = winnow.dense(q, k, v)
    errors, wrong = measure.check_all(calls, q, k, v, 1)
    refused |= wrong
    more, missing = measure.collect(contenders, "hip_decode", q, k, v)
    refused |= missing
    calls |= {name: call for name, call in more.items() if name in right}
    capture_all(calls, refused)

    timers = {name: (lambda call=call: measure.seconds_cold(call, REPEATS, flush)) for name, call in calls.items()}
    states, cycles = winnow_states(winnow, q, k, v)
    for name, (replay, before) in states.items():
        timers[name] = lambda replay=replay, before=before: measure.seconds_cold(replay, REPEATS, flush, before)
    for name, (replay, reset, steps) in cycles.items():
        def cycle(replay=replay, reset=reset, steps=steps):
            reset()
            return measure.seconds_cold(replay, steps, flush)
        timers[name] = cycle
    for timer in timers.values():
        timer()
    times = measure.interleaved(timers, arguments.rounds)
    found = {name: measure.summary(samples) for name, samples in times.items()}
    for prefix in {name.partition("/")[0] for name in more} - {"winnow"}:
        if all(f"{prefix}/stages_cached:{i}" in found for i in range(4)):
            for intervals in ((32, 16, 8), (96, 24, 8)):
                mean = mean_of_states(found, prefix, intervals)
                found[f"{prefix}/mean:" + "_".join(map(str, intervals))] = {"ms": mean, "computed": True}
    for name, contender in found.items():
        if "/" not in name:  # dense: keys and values once
            contender["tb_per_s"] = 4 * batch * tokens * kv_heads * head_dim / contender["ms"] / 1e9
    return {"tokens": tokens, "batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim,
            "dtype": "bf16", "rounds": arguments.rounds, "repeats": REPEATS, "keys_read": min(tokens, 3328),
            "relative_error": errors, "refused": refused, "contenders": found}


def rows(winnow, contenders, arguments):
    for tokens in arguments.decode_tokens:
        for batch in arguments.decode_batches:
            if batch * tokens <= 1 << 20:
                yield measure_row(winnow, contenders, arguments, tokens, batch)
                torch.cuda.empty_cache()
