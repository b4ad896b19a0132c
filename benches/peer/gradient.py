#!/usr/bin/env python3
"""Time TransformerLens's backward hooks on the palindrome checkpoint, in float32 on the CPU.

    every_hook_2500   the forward pass of the whole dataset, 2,500 sequences of 22 tokens, the mean cross-entropy at the
                      last position, and its gradient by every hook's value, kept by backward hooks

Prints a JSON line: {"work": ..., "median_s": ..., "min_s": ..., "runs": ...}
"""

import argparse
import json
import os
import statistics
from pathlib import Path

import torch
from forward import load
from timing import measure
from safetensors.torch import load_file

EXAMPLE = "example: python gradient.py --reference /path/to/reference --threads 2 --seconds 10"


def gradients(model, tokens, labels):
    """Every hook's gradient, by name."""
    kept = {}

    def keep(gradient, hook):
        kept[hook.name] = gradient

    for point in model.hook_dict.values():
        point.add_hook(keep, dir="bwd")
    loss = torch.nn.functional.cross_entropy(model(tokens)[:, -1], labels)
    loss.backward()
    model.reset_hooks()
    model.zero_grad()
    return kept


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, default=os.environ.get("PATHSUM_REFERENCE"),
                        help="the folder of reference models (default: $PATHSUM_REFERENCE)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=10, help="for how long to repeat the work (default: 10)")
    args = parser.parse_args()
    if args.reference is None:
        parser.error("give --reference, or set PATHSUM_REFERENCE")

    torch.set_num_threads(args.threads)
    folder = Path(args.reference) / "palindrome"
    model, tokens = load(folder)
    labels = load_file(folder / "dataset.safetensors")["is_palindrome"].long()
    found = gradients(model, tokens, labels)
    assert "blocks.0.attn.hook_pattern" in found and "hook_embed" in found, sorted(found)
    times = measure(lambda: gradients(model, tokens, labels), args.seconds)
    line = {"work": "every_hook_2500", "median_s": statistics.median(times), "min_s": min(times), "runs": len(times)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
