#!/usr/bin/env python3
"""Time the algebra of circuits at GPT-2 small's sizes, on random weights, in float32 on the CPU.

    composition   HookedTransformer.all_composition_scores for Q, K and V
    svd           torch.linalg.svd of one dense W_OV, [768, 768]
    svd_factored  FactoredMatrix.svd of the same
    top_10        the ten largest entries of every row of W_E W_OV W_U, in blocks of rows, by torch.topk

Prints a JSON line for each: {"work": ..., "median_s": ..., "min_s": ..., "runs": ...}
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformer_lens import FactoredMatrix, HookedTransformer, HookedTransformerConfig

D_VOCAB, D_MODEL, D_HEAD, ROWS = 50257, 768, 64, 1024


def top_10(W_E, W_OV, W_U):
    left, right = W_E @ W_OV.A, W_OV.B @ W_U
    return [torch.topk(block @ right, 10) for block in left.split(ROWS)]


def measure(work, seconds):
    """Times of single runs: once to warm up, then for these seconds, but at least 3 times."""
    work()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 3:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return times


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=10, help="for how long to repeat each work (default: 10)")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = {"n_layers": 12, "d_model": D_MODEL, "n_ctx": 8, "d_head": D_HEAD, "n_heads": 12, "d_vocab": 8,
              "attn_only": True, "device": "cpu", "dtype": torch.float32, "seed": 0}
    model = HookedTransformer(HookedTransformerConfig(**config)).eval()
    W_OV = FactoredMatrix(torch.randn(D_MODEL, D_HEAD), torch.randn(D_HEAD, D_MODEL))
    W_E, W_U, dense = torch.randn(D_VOCAB, D_MODEL), torch.randn(D_MODEL, D_VOCAB), W_OV.AB
    works = {
        "svd": lambda: torch.linalg.svd(dense),
        # A new one each time: `svd` is cached.
        "svd_factored": lambda: FactoredMatrix(W_OV.A, W_OV.B).svd(),
        "top_10": lambda: top_10(W_E, W_OV, W_U),
        "composition": lambda: [model.all_composition_scores(mode) for mode in "QKV"],
    }
    for name, work in works.items():
        times = measure(work, args.seconds)
        line = {"work": name, "median_s": statistics.median(times), "min_s": min(times), "runs": len(times)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
