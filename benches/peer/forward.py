#!/usr/bin/env python3
"""Time TransformerLens on the palindrome checkpoint, in float32 on the CPU.

    forward_2500   the forward pass of the whole dataset, 2,500 sequences of 22 tokens, in one batch
    forward_1      the forward pass of one sequence
    cache_2500     run_with_cache of the whole dataset, with TransformerLens's default hooks (no hook_result)

Prints a JSON line for each: {"work": ..., "median_s": ..., "min_s": ..., "runs": ...}
"""

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

from timing import measure

EXAMPLE = "example: python forward.py --reference /path/to/reference --threads 2 --seconds 10"


def load(folder):
    """The unprocessed model, in float32, and the tokens of its dataset."""
    config = json.loads((folder / "config.json").read_text())
    # Not a field of TransformerLens's: there, pads are masked by hooks.
    config.pop("pad_token", None)
    config |= {"device": "cpu", "dtype": torch.float32, "init_weights": False}
    model = HookedTransformer(HookedTransformerConfig(**config)).eval()
    missing, unknown = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not unknown and all(name.endswith((".mask", ".IGNORE")) for name in missing), (missing, unknown)
    return model, load_file(folder / "dataset.safetensors")["tokens"].long()


def check(model, tokens, folder):
    """Whether what is timed is also right."""
    expected = load_file(folder / "logits_raw.safetensors")["logits"]
    error = (model(tokens) - expected).abs().max().item()
    assert error < 1e-3, f"the logits are off by {error}"


@torch.inference_mode()
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
    model, tokens = load(folder)
    assert tokens.shape == (2500, 22), tokens.shape
    check(model, tokens, folder)
    works = {
        "forward_2500": lambda: model(tokens),
        "forward_1": lambda: model(tokens[:1]),
        "cache_2500": lambda: model.run_with_cache(tokens),
    }
    for name, work in works.items():
        times = measure(work, args.seconds)
        line = {"work": name, "median_s": statistics.median(times), "min_s": min(times), "runs": len(times)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
