"""The peers, one module each.

A module has NAME, available() (None, or why it cannot run here) and any of these, each giving {name: call}. Tensors are
[batch, token, head, channel]; a call takes nothing and returns its output in the same layout.

    dense_prefill(q, k, v, causal=True)     causal, or every key for every row
    listed_prefill(q, k, v, lists)          causal attention over lists.Lists, one for all heads
    dense_decode(q, k, v)                   one query per request
    hip_prefill(q, k, v)                    hierarchical pruning with the 3K preset, and attention
    delta_prefill(q, k, v, gamma, window, sinks)    window and sinks, corrected from dense rows every gamma
    hip_decode(q, k, v)                     a decode step of it: {"name/stages_cached:N": call}, N from 0 to 3
"""
import importlib

MODULES = ("sdpa", "flex_attention", "flashinfer", "hip_attn", "delta_attention")


def load():
    """Modules that can run here, and the reasons of the others by name."""
    found, missing = [], {}
    for name in MODULES:
        module = importlib.import_module(f"contenders.{name}")
        reason = module.available()
        if reason is None:
            found.append(module)
        else:
            missing[module.NAME] = reason
    return found, missing


def import_error(*names):
    """None if all can be imported, or why not."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a package may fail in any way at import
            return f"{name}: {type(error).__name__}: {error}"[:300]
    return None
