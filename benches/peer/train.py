#!/usr/bin/env python3
"""Time training in TransformerLens and PyTorch, in float32 on the CPU: of the palindrome model, and of modular addition.

    epoch_by_100   an epoch of the dataset's 2,500 sequences, in batches of 100: forward, cross-entropy at the last
                   position, backward, AdamW
    epoch_by_500   the same in batches of 500
    epoch_full_batch   an epoch of modular addition: 30% of all pairs modulo 113 at once, with weight decay

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


def show(work, times):
    line = {"work": work, "median_s": statistics.median(times), "min_s": min(times), "runs": len(times)}
    print(json.dumps(line), flush=True)


def epoch(model, optimizer, tokens, labels, size):
    for batch in torch.randperm(len(tokens)).split(size):
        loss = torch.nn.functional.cross_entropy(model(tokens[batch])[:, -1], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def full_batch(seconds):
    p = 113
    model = HookedTransformer(HookedTransformerConfig(
        n_layers=1, d_model=128, n_ctx=3, d_head=32, n_heads=4, d_mlp=512, act_fn="relu", d_vocab=p + 1,
        d_vocab_out=p, normalization_type=None, device="cpu", dtype=torch.float32, seed=0))
    for name, parameter in model.named_parameters():
        if ".attn.b_" in name or name == "unembed.b_U":
            parameter.requires_grad = False
    pairs = torch.randperm(p * p)[: int(0.3 * p * p)]
    a, b = pairs // p, pairs % p
    tokens, labels = torch.stack([a, b, torch.full_like(a, p)], dim=1), (a + b) % p
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3, weight_decay=1.0, betas=(0.9, 0.98))

    def step():
        loss = torch.nn.functional.cross_entropy(model(tokens)[:, -1], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return measure(step, seconds)


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
        show(f"epoch_by_{size}", times)
    show("epoch_full_batch", full_batch(args.seconds))


if __name__ == "__main__":
    main()
