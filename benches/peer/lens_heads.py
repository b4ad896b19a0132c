#!/usr/bin/env python3
"""Compare `pathsum lens`, `pathsum heads` and `pathsum loss` with PyTorch and transformers, in float64.

    python lens_heads.py --pathsum target/release/pathsum FOLDER [FOLDER ...]

Each FOLDER is a Hugging Face model's. Tokens are drawn, with many repeats; models that have pads get some. What is compared
is worked out here from the activations of transformers, without pathsum: the logits that the model's own last norm and
head make of the stream at each layer, what attention, MLPs and heads add to the logits at the run's scale, and the scores
of every head; where a folder has a tokenizer, the loss of each token of a text that is read in windows. Prints the largest differences of each model; exits with status 1 if any is more than 1e-9 of the largest
number that it is among.

Needs the environment of docs/make_reference.py.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from safetensors.torch import save_file

TOLERANCE = 1e-9
SCORES = ["previous", "duplicate", "induction", "first", "entropy", "copying"]


def reference():
    """docs/make_reference.py, which runs transformers in float64 throughout."""
    path = Path(__file__).resolve().parents[2] / "docs" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_reference"] = module
    spec.loader.exec_module(module)
    return module


make = reference()


class Differences:
    """The largest of each kind, relative to the largest number compared."""

    def __init__(self):
        self.largest = {}

    def add(self, kind, found, expected):
        found, expected = np.asarray(found, float), np.asarray(expected, float)
        assert found.shape == expected.shape, (kind, found.shape, expected.shape)
        size = max(1.0, np.abs(expected).max(initial=0.0))
        off = np.abs(found - expected).max(initial=0.0) / size
        assert np.isfinite(off), kind
        self.largest[kind] = max(self.largest.get(kind, 0.0), off)


class Peer:
    """A model in transformers, and what its parts are called there."""

    def __init__(self, folder):
        self.model, self.family, self.config = make.load(folder)
        bodies = [make.module_at(self.model, path) for path in self.family.body]
        blocks = self.family.blocks
        self.body = next(b for b in bodies if b is not None and make.module_at(b, blocks) is not None)
        self.blocks = make.module_at(self.body, blocks)
        self.after = self.family.after(self.config)
        self.norm = None
        if self.family.ln_final and not self.after:
            self.norm = make.module_at(self.body, self.family.ln_final)
        self.head = self.model.get_output_embeddings()

    def run(self, tokens, mask):
        given = {} if mask is None else {"attention_mask": mask}
        self.acts = make.activations(self.model, self.family, self.config, tokens, **given)

    def streams(self):
        first = self.acts["hook_full_embed" if self.family.embed else "blocks.0.hook_resid_pre"]
        last = "hook_normalized_resid_post" if self.after else "hook_resid_post"
        return [first] + [self.acts[f"blocks.{l}.{last}"] for l in range(len(self.blocks))]

    @torch.no_grad()
    def end(self, x):
        """The model's own modules from the end of the stream on."""
        with make.float32_means_float64(), make.watch_for_narrow_floats():
            if hasattr(self.model, "cls"):
                return self.model.cls(x)
            if self.norm is not None:
                x = self.norm(x)
            logits = self.head(x)
            cap = getattr(self.config, "final_logit_softcapping", None)
            return logits if cap is None else torch.tanh(logits / cap) * cap

    def linear_end(self):
        """Whether the logits are linear in the stream behind the last norm."""
        capped = getattr(self.config, "final_logit_softcapping", None) is not None
        return self.head is not None and not hasattr(self.model, "cls") and not capped

    def attn(self, layer):
        return make.module_at(self.blocks[layer], self.family.attn)

    def d_head(self):
        names = ("head_dim", "head_size", "attention_head_size")
        return next(getattr(self.attn(0), n) for n in names if hasattr(self.attn(0), n))

    @torch.no_grad()
    def W_O(self, layer):
        """`[head, d_head, d_model]`, and its bias."""
        names = ("o_proj", "out_proj", "c_proj", "dense")
        found = [getattr(self.attn(layer), n) for n in names if hasattr(self.attn(layer), n)]
        module = found[0] if found else make.module_at(self.blocks[layer], self.family.attn_out)
        W, b = matrix(module)
        return W.reshape(-1, self.d_head(), W.shape[1]), b

    @torch.no_grad()
    def W_V(self, layer):
        """`[group, d_model, d_head]`"""
        W = matrix(getattr(self.attn(layer), self.family.qkv[-1]))[0][None]
        name = "x.fused" if self.family.fused else "x.attn.hook_v"
        parts = make.split_heads(name, W, self.family, self.config, self.d_head())
        return parts["x.attn.hook_v"][0].transpose(0, 1)

    @torch.no_grad()
    def copying(self, layer, head, heads):
        W_E = self.model.get_input_embeddings().weight
        W_V = self.W_V(layer)
        W_V = W_V[head // (heads // len(W_V))]
        # The long way round: through the tokens.
        small = (self.W_O(layer)[0][head] @ self.head.weight.T) @ (W_E @ W_V)
        values = torch.linalg.eigvals(small)
        return float(values.real.sum() / values.abs().sum())


def matrix(module):
    """A linear module as `x W + b`, whichever way round it keeps its weight."""
    weight = module.weight
    n = weight.shape[0] if type(module).__name__ == "Conv1D" else weight.shape[1]
    b = module(torch.zeros(1, n, dtype=torch.float64))
    return module(torch.eye(n, dtype=torch.float64)) - b, b[0]


def at_scale(norm, y, x):
    """What the part `y` of `x` adds to the norm of `x`, without the bias."""
    centred = isinstance(norm, torch.nn.LayerNorm)
    eps = next(getattr(norm, n) for n in ("eps", "variance_epsilon") if hasattr(norm, n))
    mean = lambda v: v.mean(-1, keepdim=True) if centred else 0.0
    scale = ((x - mean(x)) ** 2).mean(-1, keepdim=True).add(eps).sqrt()
    weight = norm.weight + 1.0 if type(norm).__name__.startswith("Gemma") else norm.weight
    return (y - mean(y)) / scale * weight


def pattern_scores(patterns, tokens, mask):
    """By plain loops: `patterns` of one head, `[batch, query, key]`."""
    sums = {name: [] for name in SCORES[:5]}
    for pattern, row, seen in zip(patterns, tokens.tolist(), mask.tolist()):
        n = sum(seen)  # pads are at the end
        for q in range(n):
            if q >= 1:
                sums["previous"].append(pattern[q, q - 1])
            same = [k for k in range(q) if row[k] == row[q]]
            if same:
                sums["duplicate"].append(sum(pattern[q, k] for k in same))
                sums["induction"].append(sum(pattern[q, k + 1] for k in same))
            sums["first"].append(pattern[q, 0])
            own = pattern[q, :n]
            sums["entropy"].append(-sum(p * np.log(p) for p in own if p > 0))
    return {name: float(np.mean(values)) for name, values in sums.items()}


def pathsum(program, *args, fails=False):
    done = subprocess.run([program, *map(str, args), "--json"], capture_output=True, text=True)
    if fails:
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, (args, done)
        return None
    if done.returncode != 0:
        raise SystemExit(f"pathsum {' '.join(map(str, args))}: {done.stderr}")
    return json.loads(done.stdout)


def row_of(entries, vocab, key="logit"):
    """A list of tokens with their numbers as one row."""
    row = np.full(vocab, np.nan)
    for entry in entries:
        row[entry["token"]] = entry[key]
    return row


def compare_lens(program, folder, peer, file, last, d):
    vocab = peer.acts["logits"].shape[-1]
    found = pathsum(program, "lens", folder, "--tokens", file, "--top", vocab)["sequences"]
    logits = [peer.end(x) for x in peer.streams()]
    d.add("end", logits[-1][0, : last[0] + 1], peer.acts["logits"][0, : last[0] + 1])
    for s, sequence in enumerate(found):
        p = sequence["position"]
        assert p == last[s]
        answer = sequence["answer"]["token"]
        own = peer.acts["logits"][s, p].numpy()
        assert answer == own.argmax() and sequence["answer"]["rank"] == 1
        assert len(sequence["places"]) == len(logits)
        for place, row in zip(sequence["places"], logits):
            row = row[s, p].numpy()
            shares = torch.softmax(torch.tensor(row), 0).numpy()
            d.add("lens", row_of(place["top"], vocab), row)
            d.add("lens", row_of(place["top"], vocab, "probability"), shares)
            d.add("lens", place["answer"]["logit"], row[answer])
            d.add("lens", place["answer"]["probability"], shares[answer])
            assert place["answer"]["rank"] == 1 + (row > row[answer]).sum()


@torch.no_grad()
def compare_writers(program, folder, peer, file, last, d):
    kinds = ["attn", "mlp", "heads"]
    if not peer.linear_end():
        for kind in kinds:
            pathsum(program, "lens", folder, "--tokens", file, "--at", kind, fails=True)
        return
    if peer.after:
        return
    vocab, W_U, end = peer.acts["logits"].shape[-1], peer.head.weight.T, peer.streams()[-1]
    heads = peer.acts["blocks.0.attn.hook_pattern"].shape[1]
    written = {kind: [] for kind in kinds}
    for l, block in enumerate(peer.blocks):
        get = lambda name: peer.acts[f"blocks.{l}.{name}"]
        written["attn"].append(get("hook_attn_out"))
        written["mlp"].append(get("hook_mlp_out"))
        v = get("attn.hook_v").transpose(1, 2)
        v = v.repeat_interleave(heads // v.shape[1], 1)
        W_O, b_O = peer.W_O(l)
        results = torch.einsum("bhqk,bhkd,hdm->bhqm", get("attn.hook_pattern"), v, W_O)
        total = results.sum(1) + b_O
        # Where a norm stands over what attention writes, heads go through it at the run's scale.
        normed = "post_attention_layernorm" == peer.family.attn_out
        for h in range(heads):
            own = results[:, h]
            if normed:
                own = at_scale(block.post_attention_layernorm, own, total)
            written["heads"].append(own)
    for kind in kinds:
        found = pathsum(program, "lens", folder, "--tokens", file, "--at", kind, "--top", vocab)
        for s, sequence in enumerate(found["sequences"]):
            p, answer = sequence["position"], sequence["answer"]["token"]
            assert p == last[s] and len(sequence["places"]) == len(written[kind])
            for place, own in zip(sequence["places"], written[kind]):
                row = (at_scale(peer.norm, own[s, p], end[s, p]) @ W_U).numpy()
                d.add(kind, row_of(place["up"], vocab), row)
                d.add(kind, row_of(place["down"], vocab), row)
                d.add(kind, place["answer"], row[answer])


def compare_heads(program, folder, peer, file, tokens, mask, d):
    found = pathsum(program, "heads", folder, "--tokens", file)["heads"]
    heads = peer.acts["blocks.0.attn.hook_pattern"].shape[1]
    assert len(found) == heads * len(peer.blocks)
    copies = peer.head is not None and not hasattr(peer.model, "cls")
    for i, own in enumerate(found):
        layer, head = divmod(i, heads)
        assert own["head"] == f"{layer}.{head}"
        pattern = peer.acts[f"blocks.{layer}.attn.hook_pattern"][:, head].numpy()
        for name, expected in pattern_scores(pattern, tokens, mask).items():
            d.add(name, own[name], expected)
        if copies:
            d.add("copying", own["copying"], peer.copying(layer, head, heads))
        else:
            assert own["copying"] is None


TEXT = "Once upon a time there was a little girl. She had a red ball, and went to the park with her mother. "


def compare_loss(program, folder, peer, scratch, d):
    """Windows of 24 tokens, each 10 after the one before; a token counts in the first window that foretells it."""
    window, stride = 24, 10
    file = Path(scratch) / "text.txt"
    file.write_text(TEXT)
    given = ("--text", file, "--window", window, "--stride", stride, "--each")
    (found,) = pathsum(program, "loss", folder, *given)["texts"]
    tokens = torch.tensor(found["tokens"])
    assert len(tokens) > window + stride
    assert len(found["loss"]) == len(tokens) - 1
    counted = 1
    for first in range(0, len(tokens), stride):
        own = tokens[first : first + window]
        if first + len(own) <= counted:
            break
        with torch.no_grad(), make.float32_means_float64(), make.watch_for_narrow_floats():
            logits = peer.model(own[None]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], own[1:], reduction="none")
        for i in range(counted, first + len(own)):
            d.add("loss", found["loss"][i - 1], losses[i - first - 1].item())
        counted = first + len(own)
    assert counted == len(tokens)


def compare(program, folder, seed):
    peer = Peer(str(folder))
    generator = torch.Generator().manual_seed(seed)
    # Few tokens, so that they come again.
    tokens = torch.randint(8, (3, 18), generator=generator) * 3 + 1
    last, given = [17, 17, 17], {"tokens": tokens}
    mask = torch.ones_like(tokens)
    if peer.config.model_type == "bert":
        mask[1, 12:] = mask[2, 5:] = 0
        last = [17, 11, 4]
        given["attention_mask"] = mask
    peer.run(tokens, given.get("attention_mask"))
    d = Differences()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tokens.safetensors"
        save_file(given, file)
        if "logits" in peer.acts:
            compare_lens(program, folder, peer, file, last, d)
            compare_writers(program, folder, peer, file, last, d)
        else:
            pathsum(program, "lens", folder, "--tokens", file, fails=True)
        compare_heads(program, folder, peer, file, tokens, mask, d)
        if (folder / "tokenizer.json").exists() and "logits" in peer.acts:
            compare_loss(program, folder, peer, scratch, d)
    return d.largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a Hugging Face model's folder")
    parser.add_argument("--pathsum", default="target/release/pathsum", help="the program")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens")
    options = parser.parse_args()
    good = True
    for folder in options.folders:
        largest = compare(options.pathsum, folder, options.seed)
        good &= max(largest.values()) <= TOLERANCE
        print(f"{folder.name}: " + ", ".join(f"{kind} {off:.1e}" for kind, off in largest.items()), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
