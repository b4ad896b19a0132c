#!/usr/bin/env python3
"""Compare `pathsum edges --method eap, eap-ig, eap-ig-activations, atp*, relp, relp-qk` with PyTorch, in float64.

    python edges.py --pathsum target/release/pathsum

Random models of three shapes (blocks in sequence with LayerNorm; parallel ones with rotary positions; RMSNorm, gated
neurons and keys and values that heads share) are run in TransformerLens, with the inputs of queries, keys and values
split by head as the Mechanistic Interpretability Benchmark has them, and attributed by PyTorch's own derivatives: of
relevance patching with scales, patterns and quotients of activation functions detached, of AtP* with what a layer writes
detached, and along what a head mixes in a run in which its queries or keys read another stream. Prints the largest
difference of each model and method, and exits with status 1 if any is more than 1e-9 of the largest score.

Needs the environment of README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

TOLERANCE = 1e-9
METHODS = ["eap", "eap-ig", "eap-ig-activations", "atp*", "relp", "relp-qk"]
STEPS = 4
COMMON = dict(n_layers=3, d_model=24, n_heads=4, d_head=6, d_mlp=40, n_ctx=16, d_vocab=37)
MODELS = {
    "sequential": dict(act_fn="gelu_new", normalization_type="LN"),
    "parallel": dict(act_fn="gelu", normalization_type="LN", parallel_attn_mlp=True,
                     positional_embedding_type="rotary", rotary_dim=4, rotary_adjacent_pairs=False),
    "grouped": dict(act_fn="silu", normalization_type="RMS", gated_mlp=True, n_key_value_heads=2,
                    positional_embedding_type="rotary", rotary_dim=6, rotary_adjacent_pairs=False),
}
RIGHT, WRONG = 5, 11


def build(fields):
    config = HookedTransformerConfig(**COMMON, **fields, dtype=torch.float64, device="cpu")
    model = HookedTransformer(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(0.25 * torch.randn(p.shape, dtype=torch.float64) + (1.0 if name.endswith(".w") else 0.0))
    model.set_use_split_qkv_input(True)
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    if "n_key_value_heads" in fields:
        model.set_ungroup_grouped_query_attention(True)
    return model


def save(model, fields, folder):
    weights = {}
    for name, value in model.state_dict().items():
        if name.endswith((".mask", ".IGNORE", "rotary_sin", "rotary_cos")):
            continue
        weights[name] = value.clone().contiguous()
    save_file(weights, folder / "model.safetensors")
    given = {**COMMON, **fields, "eps": model.cfg.eps}
    (folder / "config.json").write_text(json.dumps(given))


class Lens:
    """A model's senders and receivers, by the benchmark's names."""

    def __init__(self, model):
        self.model, c = model, model.cfg
        self.heads, self.layers = range(c.n_heads), range(c.n_layers)
        self.parallel = c.parallel_attn_mlp

    def written(self, tokens):
        _, cache = self.model.run_with_cache(tokens)
        out = {"input": cache["hook_embed"]}
        for l in self.layers:
            for h in self.heads:
                out[f"a{l}.h{h}"] = cache[f"blocks.{l}.attn.hook_result"][:, :, h]
            out[f"m{l}"] = cache[f"blocks.{l}.hook_mlp_out"]
        return {name: value.detach() for name, value in out.items()}

    def edges(self):
        senders = ["input"]
        for l in self.layers:
            heads = [f"a{l}.h{h}" for h in self.heads]
            before = list(senders)
            for h in heads:
                for of in "qkv":
                    yield from ((s, f"{h}<{of}>") for s in before)
            senders += heads
            yield from ((s, f"m{l}") for s in (before if self.parallel else senders))
            senders.append(f"m{l}")
        yield from ((s, "logits") for s in senders)

    def derivatives(self, tokens, hooks):
        """By what every receiver reads, and by what every head mixes (named as the head), in a run with these forward
        hooks."""
        kept = {}

        def keep(value, hook):
            if value.requires_grad:
                value.retain_grad()
                kept[hook.name] = value
            return value

        names = [f"blocks.{l}.hook_{of}_input" for l in self.layers for of in "qkv"]
        names += [f"blocks.{l}.hook_mlp_in" for l in self.layers]
        names += [f"blocks.{l}.attn.hook_z" for l in self.layers]
        names.append(f"blocks.{len(self.layers) - 1}.hook_resid_post")
        logits = self.model.run_with_hooks(tokens, fwd_hooks=hooks + [(n, keep) for n in names])
        (logits[:, -1, RIGHT] - logits[:, -1, WRONG]).mean().backward()
        found = {}
        for l in self.layers:
            for of in "qkv":
                value = kept[f"blocks.{l}.hook_{of}_input"]
                for h in self.heads:
                    found[f"a{l}.h{h}<{of}>"] = self.grad(value)[:, :, h]
            found[f"m{l}"] = self.grad(kept[f"blocks.{l}.hook_mlp_in"])
            z = self.grad(kept[f"blocks.{l}.attn.hook_z"])
            found.update({f"a{l}.h{h}": z[:, :, h] for h in self.heads})
        found["logits"] = self.grad(kept[names[-1]])
        self.model.zero_grad()
        return found

    @staticmethod
    def grad(value):
        return torch.zeros_like(value) if value.grad is None else value.grad

    def points(self, method, clean, corrupt):
        """The forward hooks of every run in which derivatives are taken."""
        if method == "eap":
            return [[]]
        if method in ["relp", "relp-qk"]:
            return [self.relevance(patterns=method == "relp")]

        def between(names, share):
            hooks = []
            for site, own in names:
                value = torch.stack([share * clean[n] + (1 - share) * corrupt[n] for n in own], dim=2)
                value = value if "hook_result" in site else value[:, :, 0]
                hooks.append((site, lambda _, hook, value=value: value.clone().requires_grad_(True)))
            return hooks

        if method == "eap-ig":
            return [between([("hook_embed", ["input"])], k / STEPS) for k in range(STEPS)]
        sites = [("hook_embed", ["input"])]
        for l in self.layers:
            sites.append((f"blocks.{l}.attn.hook_result", [f"a{l}.h{h}" for h in self.heads]))
            sites.append((f"blocks.{l}.hook_mlp_out", [f"m{l}"]))
        return [between([site], k / STEPS) for site in sites for k in range(1, STEPS + 1)]

    def relevance(self, patterns):
        """Forward hooks that leave every value as it is, and make its derivative what relevance propagation passes on."""
        met = {}

        def detach(value, hook):
            return value.detach()

        def keep(value, hook):
            met[hook.name] = value
            return value

        def neurons(post, hook):
            layer = hook.name.removesuffix("hook_post")
            pre, up = met[layer + "hook_pre"], met.get(layer + "hook_pre_linear")
            if up is None:
                return pre * (post / pre).detach()
            b = self.model.blocks[int(layer.split(".")[1])].mlp.b_in
            both = pre * ((post - b) / (pre * up)).detach() * up
            return both / 2 + (both / 2).detach() + b

        hooks = [(lambda name: name.endswith("hook_scale"), detach),
                 (lambda name: name.endswith(("mlp.hook_pre", "hook_pre_linear")), keep),
                 (lambda name: name.endswith("mlp.hook_post"), neurons)]
        if patterns:
            hooks.append((lambda name: name.endswith("hook_pattern"), detach))
        return hooks

    def mixed(self, tokens, receiver, difference):
        """What a head mixes where its queries or keys read another stream."""
        (head, of), (layer, h) = receiver[:-1].split("<"), map(int, receiver[1:].split("<")[0].split(".h"))

        def add(value, hook):
            value = value.clone()
            value[:, :, h] += difference
            return value

        kept = {}
        hooks = [(f"blocks.{layer}.attn.hook_z", lambda z, hook: kept.update(z=z[:, :, h]))]
        if difference is not None:
            hooks.append((f"blocks.{layer}.hook_{of}_input", add))
        with torch.no_grad():
            self.model.run_with_hooks(tokens, fwd_hooks=hooks)
        return kept["z"]

    def atp_star(self, clean_tokens, corrupt_tokens):
        """The mean over pairs, and over the layers but the receiver's own, of sizes."""
        clean, corrupt = self.written(clean_tokens), self.written(corrupt_tokens)
        drops = []
        for l in self.layers:
            names = (f"blocks.{l}.hook_attn_out", f"blocks.{l}.hook_mlp_out")
            # The metric is the mean over the pairs.
            d = self.derivatives(clean_tokens, [(name, lambda value, hook: value.detach()) for name in names])
            drops.append({name: len(clean_tokens) * value for name, value in d.items()})
        sums = {}
        for s, r in self.edges():
            change, read = corrupt[s] - clean[s], r
            if r.endswith(("<q>", "<k>")):
                read = r.split("<")[0]
                change = self.mixed(clean_tokens, r, change) - self.mixed(clean_tokens, r, None)
            own = None if r == "logits" else int(r.lstrip("am").split(".")[0])
            used = [d for l, d in enumerate(drops) if l != own]
            sizes = [(change * d[read]).sum((1, 2)).abs().mean().item() for d in used]
            sums[f"{s}->{r}"] = sum(sizes) / len(sizes)
        return sums

    def scores(self, method, clean_tokens, corrupt_tokens):
        if method == "atp*":
            return self.atp_star(clean_tokens, corrupt_tokens)
        clean, corrupt = self.written(clean_tokens), self.written(corrupt_tokens)
        sums = {}
        points = self.points(method, clean, corrupt)
        for hooks in points:
            d = self.derivatives(clean_tokens, hooks)
            for s, r in self.edges():
                score = ((corrupt[s] - clean[s]) * d[r]).sum().item() / len(points)
                sums[f"{s}->{r}"] = sums.get(f"{s}->{r}", 0.0) + score
        return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pathsum", required=True, type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    worst = 0.0
    for name, fields in MODELS.items():
        model = build(fields)
        clean = torch.randint(0, COMMON["d_vocab"], (3, 9))
        corrupt = clean.clone()
        corrupt[:, 3:6] = torch.randint(0, COMMON["d_vocab"], (3, 3))
        lens = Lens(model)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            save(model, fields, folder)
            save_file({"tokens": clean}, folder / "clean.safetensors")
            save_file({"tokens": corrupt}, folder / "corrupt.safetensors")
            for method in METHODS:
                command = [options.pathsum.resolve(), "edges", folder, "--clean", folder / "clean.safetensors",
                           "--corrupt", folder / "corrupt.safetensors", "--metric", f"logit_diff:{RIGHT}-{WRONG}",
                           "--method", method, "--json"]
                if method.startswith("eap-ig"):
                    command += ["--steps", str(STEPS)]
                run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
                if run.returncode != 0:
                    sys.exit(f"{name} {method}: {run.stderr}")
                found = {edge: entry["score"] for edge, entry in json.loads(run.stdout)["edges"].items()}
                expected = lens.scores(method, clean, corrupt)
                assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
                size = max(map(abs, expected.values()))
                off = max(abs(found[e] - expected[e]) for e in expected) / size
                print(f"{name:12} {method:20} {len(expected)} edges, largest {size:.3f}, farthest {off:.1e} of it")
                worst = max(worst, off)
    sys.exit(int(not worst <= TOLERANCE))


if __name__ == "__main__":
    main()
