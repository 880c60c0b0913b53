"""Prefill: dense, over random block lists, and the 3K preset whole or for the last chunk of a long context."""
import torch

import lists
import measure

ROWS = 128  # last rows that are checked
# Keys of a block and of a page; 0: not paged.
FORMS = ((8, 0), (16, 0), (32, 0), (64, 0), (128, 0), (64, 64), (64, 16), (64, 4), (64, 1))


def rounds_of(arguments, tokens):
    return arguments.rounds if tokens <= 32768 else max(3, arguments.rounds // 3)


def finish(row, calls, rounds, repeats, errors, refused, flops, warm_up=True):
    """Times the calls and completes a result row; `flops`: counter -> floating-point operations."""
    for call in calls.values() if warm_up else ():
        call()
    lead = measure.LEAD if warm_up else 0
    times = measure.interleaved({name: (lambda call=call: measure.seconds_in_a_row(call, repeats, lead))
                                 for name, call in calls.items()}, rounds)
    row |= {"dtype": "bf16", "rounds": rounds, "repeats": repeats, "relative_error": errors, "refused": refused,
            "contenders": {name: measure.summary(samples) for name, samples in times.items()}}
    for name, contender in row["contenders"].items():
        for counter, amount in flops(name).items():
            contender[counter] = amount / contender["ms"] / 1e9
    return row


def check_preset(winnow, contenders, heads, kv_heads, head_dim, tokens=3072):
    """Up to 3328 keys the 3K preset selects everything: outputs must be dense attention's. Names whose output is, and
    why others are refused."""
    q, k, v = measure.tensors_of(tokens, tokens, heads, kv_heads, head_dim)
    calls, refused = preset_calls(winnow, contenders, q, k, v)
    errors, wrong = measure.check_all(calls, q, k, v, ROWS)
    return set(errors), refused | wrong


def preset_calls(winnow, contenders, q, k, v):
    calls = {"winnow_sparse_per_batch": winnow.sparse_prefill(q, k, v, 1),
             "winnow_sparse_per_kv_group": winnow.sparse_prefill(q, k, v, k.shape[2])}
    more, refused = measure.collect(contenders, "hip_prefill", q, k, v)
    return calls | more, refused


def dense(winnow, contenders, arguments, tokens, heads, kv_heads, head_dim, preset=False, causal=True):
    """Dense contenders, and with `preset` the sparse ones beside them."""
    q, k, v = measure.tensors_of(tokens, tokens, heads, kv_heads, head_dim)
    calls, refused = measure.collect(contenders, "dense_prefill", q, k, v, causal)
    calls["winnow"] = winnow.dense(q, k, v, causal)
    errors, wrong = measure.check_all(calls, q, k, v, ROWS, causal=causal)
    refused |= wrong
    if preset:
        right, wrong = check_preset(winnow, contenders, heads, kv_heads, head_dim)
        sparse, more = preset_calls(winnow, contenders, q, k, v)
        refused |= wrong | more
        calls |= {name: call for name, call in sparse.items() if name in right}
    pairs = tokens * (tokens + 1) / 2 if causal else tokens**2
    case = "sparse" if preset else "dense" if causal else "full"
    row = {"case": case, "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    return finish(row, calls, rounds_of(arguments, tokens), max(1, int(2e9 / tokens**2)), errors, refused,
                  lambda name: {} if "sparse" in name or "hip" in name else {"tflops": 4 * heads * head_dim * pairs})


def listed(winnow, contenders, arguments, tokens, budget, heads=32, kv_heads=8, head_dim=128):
    """Lists of 128-token blocks, one for all heads of 128 rows."""
    q, k, v = measure.tensors_of(tokens, tokens, heads, kv_heads, head_dim)
    chosen = lists.random_lists(tokens, budget)
    calls, refused = measure.collect(contenders, "listed_prefill", q, k, v, chosen)
    calls["winnow"] = winnow.listed(q, k, v, chosen)
    errors, wrong = measure.check_all(calls, q, k, v, ROWS, chosen.visible(ROWS))
    calls["winnow_dense"] = winnow.dense(q, k, v)
    visible, blocks = chosen.pairs()
    row = {"case": "listed", "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim,
           "budget": budget, "block": chosen.block_size, "keys_read": visible / tokens}

    def flops(name):
        if name == "winnow_dense":
            return {"tflops": 4 * heads * head_dim * tokens * (tokens + 1) / 2}
        return {"tflops": 4 * heads * head_dim * visible, "tflops_blocks": 4 * heads * head_dim * blocks}

    return finish(row, calls, rounds_of(arguments, tokens), max(1, int(4e5 / tokens)), errors, refused | wrong, flops)


def forms(winnow, arguments, tokens, budget, heads=32, kv_heads=8, head_dim=128):
    """The same budget as lists of blocks of every size, and over pages, in turn with dense attention over the same keys."""
    q, k, v = measure.tensors_of(tokens, tokens, heads, kv_heads, head_dim)
    calls, errors, visible, blocks = {"winnow_dense": winnow.dense(q, k, v)}, {}, 0, 0
    for block, page in FORMS:
        chosen = lists.random_lists(tokens, budget, block)
        name = f"block:{block}" + (f"/page:{page}" if page else "")
        one = {f"winnow/{name}": winnow.listed(q, k, v, chosen, page)}
        errors |= measure.check_all(one, q, k, v, ROWS, chosen.visible(ROWS))[0]
        calls |= one
        visible, blocks = chosen.pairs()  # alike for all
    row = {"case": "forms", "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim,
           "budget": budget, "keys_read": visible / tokens}

    def flops(name):
        return {"tflops": 4 * heads * head_dim * (tokens * (tokens + 1) / 2 if name == "winnow_dense" else blocks)}

    return finish(row, calls, arguments.rounds, max(1, int(4e5 / tokens)), errors, {}, flops)


def chunk(winnow, contenders, arguments, queries, tokens, heads=32, kv_heads=8, head_dim=128):
    """The 3K preset for the last `queries` rows of a long context, with winnow's dense time beside it."""
    right, wrong = check_preset(winnow, contenders, heads, kv_heads, head_dim)
    q, k, v = measure.tensors_of(queries, tokens, heads, kv_heads, head_dim)
    calls, refused = preset_calls(winnow, contenders, q, k, v)
    calls = {name: call for name, call in calls.items() if name in right}
    calls["winnow_dense"] = winnow.dense(q, k, v)
    for name, call in calls.items():
        if name.startswith("winnow") and not torch.isfinite(call()).all():
            raise RuntimeError(f"{name}: an output is not finite")
    row = {"case": "chunk", "queries": queries, "tokens": tokens, "heads": heads, "kv_heads": kv_heads,
           "head_dim": head_dim, "keys_read": sum(min(p + 1, 3328) for p in range(tokens - queries, tokens)) / queries}
    pairs = queries * (tokens - queries) + queries * (queries + 1) / 2
    return finish(row, calls, max(3, arguments.rounds // 3), 1, {}, refused | wrong,
                  lambda name: {"tflops": 4 * heads * head_dim * pairs} if name == "winnow_dense" else {})


def delta(winnow, contenders, arguments, tokens, heads=32, kv_heads=8, head_dim=128, gamma=64, window=2048,
          sinks=1024):
    """Corrected sparse attention, beside what it corrects and dense attention. The last rows are dense in all that are
    corrected, which is what can be checked."""
    q, k, v = measure.tensors_of(tokens, tokens, heads, kv_heads, head_dim)
    dense, refused = measure.collect(contenders, "dense_prefill", q, k, v)
    calls = {name: call for name, call in dense.items() if name == "cudnn"}
    more, wrong = measure.collect(contenders, "delta_prefill", q, k, v, gamma, window, sinks)
    calls |= more | {"winnow_delta": winnow.delta(q, k, v, gamma, window, sinks),
                     "winnow_sparse_delta": winnow.sparse_prefill(q, k, v, 1, gamma)}
    refused |= wrong
    errors, wrong = measure.check_all(calls, q, k, v, ROWS)
    refused |= wrong
    position = torch.arange(tokens - ROWS, tokens, device=q.device)[:, None]
    key = torch.arange(tokens, device=q.device)
    uncorrected = {"winnow_window": winnow.window(q, k, v, window, sinks)}
    errors |= measure.check_all(uncorrected, q, k, v, ROWS, (key < sinks) | (key > position - window))[0]
    right, wrong = check_preset(winnow, [], heads, kv_heads, head_dim)
    refused |= wrong
    calls |= uncorrected
    if "winnow_sparse_per_batch" in right:
        calls["winnow_sparse_per_batch"] = winnow.sparse_prefill(q, k, v, 1)
    row = {"case": "delta", "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim,
           "gamma": gamma, "window": window, "sinks": sinks}
    rounds = rounds_of(arguments, tokens) if tokens < 1 << 20 else 1
    return finish(row, calls, rounds, 1, errors, refused, lambda name: {})


def cascade(winnow, contenders, arguments, tokens, heads=32, kv_heads=8, head_dim=128):
    """Whole prompts through a cascading cache of 16448 rows, scores and insertions included, beside dense attention. What
    can be checked is that a prompt that fits the cache gives dense attention."""
    chunks, cache = ((4096, 1024) if tokens < 1 << 20 else (4096,)), (16384, 4, 64)
    short = measure.tensors_of(8192, 8192, heads, kv_heads, head_dim)
    fitting = {f"winnow_cascade_{c}": winnow.cascade_prefill(*short, c, 0, *cache) for c in chunks}
    errors, _ = measure.check_all(fitting, *short, ROWS)
    del short, fitting
    q, k, v = measure.tensors_of(tokens, tokens, heads, kv_heads, head_dim)
    dense, refused = measure.collect(contenders, "dense_prefill", q, k, v)
    calls = {name: call for name, call in dense.items() if name == "cudnn"}
    long = tokens >= 1 << 20  # a dense call takes many seconds: one, timed once and unwarmed
    if not long:
        calls["winnow"] = winnow.dense(q, k, v)
        more, wrong = measure.check_all(calls, q, k, v, ROWS)
        errors, refused = errors | more, refused | wrong
    calls |= {f"winnow_cascade_{c}": winnow.cascade_prefill(q, k, v, c, 5e5, *cache) for c in chunks}
    row = {"case": "cascade", "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    return finish(row, calls, 1 if long else rounds_of(arguments, tokens), 1, errors, refused, lambda name: {},
                  warm_up=not long)


def rows(winnow, contenders, arguments):
    """All rows, made one at a time."""
    for head_dim in arguments.head_dims:
        for tokens in arguments.dense_tokens:
            heads = 32 if head_dim < 256 else 16
            yield dense(winnow, contenders, arguments, tokens, heads, heads // 4, head_dim)
    for head_dim in arguments.head_dims:
        for tokens in arguments.full_tokens:
            heads = 32 if head_dim < 256 else 16
            yield dense(winnow, contenders, arguments, tokens, heads, heads // 4, head_dim, causal=False)
    for tokens in arguments.sparse_tokens:
        yield dense(winnow, contenders, arguments, tokens, 32, 8, 128, preset=True)
    for tokens in arguments.listed_tokens:
        for budget in (2048, 4096):
            yield listed(winnow, contenders, arguments, tokens, budget)
            yield forms(winnow, arguments, tokens, budget)
    for tokens in arguments.chunk_tokens:
        yield chunk(winnow, contenders, arguments, 32768, tokens)
    for tokens in arguments.delta_tokens:
        yield delta(winnow, contenders, arguments, tokens)
    for tokens in arguments.cascade_tokens:
        yield cascade(winnow, contenders, arguments, tokens)
