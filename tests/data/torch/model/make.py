#!/usr/bin/env python3
"""Write this folder's model: a whole state dict of TransformerLens, its configuration, and its logits in float64.

    python make.py [FOLDER]     (the default is the folder of this script)

Every weight is drawn, so that none of them may be forgotten or exchanged without the logits changing.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

CONFIG = dict(
    n_layers=1, d_model=8, n_ctx=6, d_head=4, n_heads=2, d_mlp=12, act_fn="gelu_new", d_vocab=7, d_vocab_out=5, seed=3
)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    model = HookedTransformer(HookedTransformerConfig(**CONFIG, device="cpu"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + (name.split(".")[-1] == "w"))
    tokens = torch.randint(CONFIG["d_vocab"], (4, CONFIG["n_ctx"]), generator=generator)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    torch.save(model.state_dict(), folder / "model.pt")
    with torch.no_grad():
        logits = model.to(torch.float64)(tokens)
    assert logits.dtype == torch.float64
    save_file({"tokens": tokens, "logits": logits}, folder / "logits.safetensors")


main()
