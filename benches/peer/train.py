#!/usr/bin/env python3
"""Time the training of the palindrome model in TransformerLens and PyTorch, in float32 on the CPU.

    epoch_by_100   an epoch of the dataset's 2,500 sequences, in batches of 100: forward, cross-entropy at the last
                   position, backward, AdamW
    epoch_by_500   the same in batches of 500

Prints a JSON line for each: {"work": ..., "median_s": ..., "min_s": ..., "runs": ...}
"""

import argparse
import json
import os
import statistics
from pathlib import Path

import torch
from timing import measure
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

EXAMPLE = "example: python train.py --reference /path/to/reference --threads 2 --seconds 10"


def epoch(model, optimizer, tokens, labels, size):
    for batch in torch.randperm(len(tokens)).split(size):
        loss = torch.nn.functional.cross_entropy(model(tokens[batch])[:, -1], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, default=os.environ.get("PATHSUM_REFERENCE"),
                        help="the folder of reference models (default: $PATHSUM_REFERENCE)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=10, help="for how long to repeat each work (default: 10)")
    args = parser.parse_args()
    if args.reference is None:
        parser.error("give --reference, or set PATHSUM_REFERENCE")

    torch.set_num_threads(args.threads)
    folder = Path(args.reference) / "palindrome"
    config = json.loads((folder / "config.json").read_text())
    data = load_file(folder / "dataset.safetensors")
    tokens, labels = data["tokens"].long(), data["is_palindrome"].long()
    for size in (100, 500):
        model = HookedTransformer(HookedTransformerConfig(**config, device="cpu", dtype=torch.float32, seed=0))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        times = measure(lambda: epoch(model, optimizer, tokens, labels, size), args.seconds)
        line = {"work": f"epoch_by_{size}", "median_s": statistics.median(times), "min_s": min(times)}
        print(json.dumps(line | {"runs": len(times)}), flush=True)


if __name__ == "__main__":
    main()
