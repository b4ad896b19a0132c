#!/usr/bin/env python3
"""Time TransformerLens's ablations and patching grids, in float32 on the CPU.

    ablate_heads                      the palindrome model's 2,500 sequences with each head's result mean-ablated in
                                      turn: logit difference
    patch_resid_pre                   get_act_patch_resid_pre from the brackets dataset's first 100 sequences to its last
                                      100: every layer and position
    patch_z                           get_act_patch_attn_head_out_by_pos on the same: every head and position
    patch_resid_pre_whole,            the same from the first 100 to the last 100 of the sequences without pads, so that
    patch_z_whole                     no key is masked

Keys at pads are masked as write-ups of this model do, by a permanent hook on the scores. Prints a JSON line for each:
{"work": ..., "median_s": ..., "min_s": ..., "runs": ...}
"""

import argparse
import json
import os
import statistics
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from forward import check, load
from timing import measure
from safetensors.torch import load_file
from transformer_lens import patching

# The brackets model's token that fills sequences up, and what keys there score.
PAD, PAD_SCORE = 1, -1e5
EXAMPLE = "example: python interventions.py --reference /path/to/reference --threads 2 --seconds 10"


def ablate_heads(folder):
    model, tokens = load(folder)
    model.set_use_attn_result(True)
    labels = load_file(folder / "dataset.safetensors")["is_palindrome"].long()
    rows = torch.arange(len(tokens))

    def mean_ablate(result, hook, head):
        result[:, :, head] = result[:, :, head].mean(0)
        return result

    def logit_diff(logits):
        last = logits[:, -1]
        return (last[rows, labels] - last[rows, 1 - labels]).mean().item()

    def work():
        scores = [logit_diff(model(tokens))]
        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):
                hook = (f"blocks.{layer}.attn.hook_result", partial(mean_ablate, head=head))
                scores.append(logit_diff(model.run_with_hooks(tokens, fwd_hooks=[hook])))
        return scores

    return work


def mask_pads(model):
    """Give keys at the pad token the score -1e5, by permanent hooks, whatever tokens the model is run on."""
    is_pad = None

    def see_tokens(embed, arguments):
        nonlocal is_pad
        is_pad = (arguments[0] == PAD)[:, None, None, :]

    def hook_attn_scores(scores, hook):  # [batch, head, query, key]
        return scores.masked_fill_(is_pad, PAD_SCORE)

    model.embed.register_forward_pre_hook(see_tokens)
    for block in model.blocks:
        block.attn.hook_attn_scores.add_hook(hook_attn_scores, is_permanent=True)


def patch(folder, grid, site, whole=False):
    model, tokens = load(folder)
    if whole:
        tokens = tokens[(tokens != PAD).all(1)]
    else:
        mask_pads(model)
        check(model, tokens, folder)
    clean, corrupt = tokens[:100], tokens[-100:]

    def metric(logits):
        return (logits[:, 0, 1] - logits[:, 0, 0]).mean()

    def work():
        _, cache = model.run_with_cache(clean, names_filter=lambda name: name.endswith(site))
        return grid(model, corrupt, cache, metric)

    return work


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, default=os.environ.get("PATHSUM_REFERENCE"),
                        help="the folder of reference models (default: $PATHSUM_REFERENCE)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=5, help="how long to time each (default: 5)")
    args = parser.parse_args()
    if args.reference is None:
        parser.error("give --reference, or set PATHSUM_REFERENCE")
    torch.set_num_threads(args.threads)
    brackets = args.reference / "brackets"
    works = {"ablate_heads": ablate_heads(args.reference / "palindrome")}
    grids = {
        "patch_resid_pre": (patching.get_act_patch_resid_pre, "hook_resid_pre"),
        "patch_z": (patching.get_act_patch_attn_head_out_by_pos, "hook_z"),
    }
    for name, (grid, site) in grids.items():
        works[name] = patch(brackets, grid, site)
        works[f"{name}_whole"] = patch(brackets, grid, site, whole=True)
    for name, work in works.items():
        times = measure(work, args.seconds, least=3)
        print(json.dumps({"work": name, "median_s": statistics.median(times), "min_s": min(times), "runs": len(times)}),
              flush=True)


if __name__ == "__main__":
    main()
