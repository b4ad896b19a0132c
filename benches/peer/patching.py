#!/usr/bin/env python3
"""Time attribution and exact patching at GPT-2 small's sizes, with random weights, in float32 on the CPU.

    attribution        what every head mixes at every position, by attribution patching: TransformerLens's forward and
                       backward hooks, as its demonstration has them; 8 pairs of 16 tokens
    edge_attribution   edge attribution patching of all 32,491 edges by PyTorch's backward hooks on TransformerLens's
                       inputs split by head; 8 pairs of 16 tokens
    patch_z            get_act_patch_attn_head_out_by_pos, exactly, on one pair of 16 tokens: 2,304 runs, of which every
                       n-th is timed (--every): each is a whole forward pass, and takes as long as any other

Prints a JSON line for each: {"work": ..., "median_s": ..., "min_s": ..., "runs": ...}
"""

import argparse
import json
import os
import statistics

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas as pd
import torch
from timing import measure
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching

EXAMPLE = "example: python patching.py --threads 2 --seconds 10"
RIGHT, WRONG = 5, 11


def build():
    config = HookedTransformerConfig(
        n_layers=12, d_model=768, n_heads=12, d_head=64, n_ctx=1024, d_vocab=50257, act_fn="gelu_new",
        normalization_type="LN", device="cpu", dtype=torch.float32, init_weights=False)
    model = HookedTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    return model


def tokens(batch, pos):
    """Two batches that differ from the fifth token on."""
    clean = torch.arange(batch * pos).mul(7919).remainder(49152).view(batch, pos)
    corrupt = clean.clone()
    corrupt[:, 4:] = corrupt[:, 4:].mul(31).remainder(49152)
    return clean, corrupt


def metric(logits):
    return (logits[:, -1, RIGHT] - logits[:, -1, WRONG]).mean()


def attribution(model):
    clean, corrupt = tokens(8, 16)

    def is_z(name):
        return name.endswith("hook_z")

    def work():
        _, source = model.run_with_cache(corrupt, names_filter=is_z)
        values, gradients = {}, {}
        model.add_hook(is_z, lambda value, hook: values.__setitem__(hook.name, value.detach()))
        model.add_hook(is_z, lambda value, hook: gradients.__setitem__(hook.name, value.detach()), dir="bwd")
        metric(model(clean)).backward()
        model.reset_hooks()
        model.zero_grad()
        return {name: (gradients[name] * (source[name] - value)).sum((0, 3)) for name, value in values.items()}

    return work


def edge_attribution(model):
    clean, corrupt = tokens(8, 16)
    model.set_use_split_qkv_input(True)
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    each = heads + 1
    # By every site how many senders come before it.
    reads = {f"blocks.{layers - 1}.hook_resid_post": 1 + layers * each}
    for l in range(layers):
        reads |= {f"blocks.{l}.hook_{of}_input": 1 + l * each for of in "qkv"}
        reads[f"blocks.{l}.hook_mlp_in"] = 1 + l * each + heads
    writes = {"hook_embed": (0, 1)}
    for l in range(layers):
        writes[f"blocks.{l}.attn.hook_result"] = (1 + l * each, heads)
        writes[f"blocks.{l}.hook_mlp_out"] = (1 + l * each + heads, 1)

    def work():
        # [batch, pos, sender, d_model], as the authors' code has it.
        differences = torch.zeros(*clean.shape, 1 + layers * each, model.cfg.d_model)

        def write(sign):
            def hook(value, hook):
                first, n = writes[hook.name]
                differences[:, :, first:first + n] += sign * (value.detach() if n > 1 else value.detach()[:, :, None])
            return hook

        scores = {}

        def read(gradient, hook):
            own = differences[:, :, :reads[hook.name]]
            by = gradient if gradient.ndim == 4 else gradient[:, :, None]
            scores[hook.name] = torch.einsum("bpsd,bprd->sr", own, by)

        with torch.no_grad():
            model.run_with_hooks(corrupt, fwd_hooks=[(name, write(1)) for name in writes])
        for name in writes:
            model.add_hook(name, write(-1))
        for name in reads:
            model.add_hook(name, read, dir="bwd")
        metric(model(clean)).backward()
        model.reset_hooks()
        model.zero_grad()
        assert sum(score.numel() for score in scores.values()) == 32_491
        return scores

    return work


@torch.inference_mode()
def patch_z(model, every):
    """How long the whole grid takes, from every so manyth of its runs."""
    clean, corrupt = tokens(1, 16)
    shape = (model.cfg.n_layers, clean.shape[1], model.cfg.n_heads)
    places = [(l, p, h) for l in range(shape[0]) for p in range(shape[1]) for h in range(shape[2])]
    places = pd.DataFrame(places, columns=["layer", "pos", "head"])
    some = places.iloc[::every].reset_index(drop=True)

    def work():
        _, cache = model.run_with_cache(corrupt, names_filter=lambda name: name.endswith("hook_z"))
        if every == 1:
            return patching.get_act_patch_attn_head_out_by_pos(model, clean, cache, metric)
        return patching.generic_activation_patch(
            model, clean, cache, metric, patching.layer_pos_head_vector_patch_setter, "z", index_df=some)

    model(clean)
    [seconds] = measure(work, 0, least=1)
    return seconds * len(places) / len(some)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=5, help="how long to time each (default: 5)")
    parser.add_argument("--every", type=int, default=16, help="of the exact grid's runs, which are timed (default: 16)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = build()
    grid = patch_z(model, args.every)
    print(json.dumps({"work": "patch_z", "median_s": grid, "min_s": grid, "runs": 1}), flush=True)
    for name, of in {"attribution": attribution, "edge_attribution": edge_attribution}.items():
        times = measure(of(model), args.seconds, least=5)
        print(json.dumps({"work": name, "median_s": statistics.median(times), "min_s": min(times), "runs": len(times)}),
              flush=True)


if __name__ == "__main__":
    main()
