#!/usr/bin/env python3
"""Make a reference folder: what TransformerLens computes from a checkpoint, all of it in float64.

    config.json                         the configuration, as given (HookedTransformerConfig's fields, and pad_token)
    checkpoint.pt                       the state dict: the file as given, or one made from the weights
    model.safetensors                   the weights, unprocessed, float32, without the buffers `mask` and `IGNORE`
    processed.safetensors               after fold_layer_norm, center_writing_weights, center_unembed and
                                        fold_value_biases, float64; folded norms keep w = 1 and b = 0
    dataset.safetensors                 `tokens` [n, pos], int64, and whatever labels came with them
    activations_{raw,processed}         every hook's value for the first 6 sequences, `logits` and `tokens`
    logits_{raw,processed}              `logits` for the whole dataset
    with --refactor: processed_refactored.safetensors, logits_refactored.safetensors
                                        after refactor_factored_attn_matrices besides

Keys at `pad_token` get score -1e5 in every layer, whatever the causal mask said. The mask's own value is the
buffer `IGNORE`: -inf, unless the checkpoint says otherwise (those of older versions say -1e5).
TransformerLens folds no norm that is "LNPre" or null already; there only the other steps are taken.

The environment is described in benches/peer/README.md.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file, save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

EXAMPLE = """examples:
  python make_reference.py checkpoint.pt --tokens dataset.safetensors --out reference/mine
  python make_reference.py folder_with_model_and_config --random 100 --seed 7 --out reference/mine
"""
PAD_SCORE = -1e5
N_ACTIVATIONS = 6  # sequences whose activations are kept
BATCH = 500  # sequences a forward pass


def is_buffer(name):
    """`mask` and `IGNORE` are in the state dict, but they are no weights."""
    return name.endswith((".mask", ".IGNORE"))


def read_weights(path):
    """The state dict of a `.pt` file, a `.safetensors` file, or a folder with model.safetensors."""
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def build(config, **changes):
    """An uninitialised float64 model on the CPU."""
    fields = {k: v for k, v in config.items() if k != "pad_token"}
    fields |= {"dtype": torch.float64, "device": "cpu", "init_weights": False} | changes
    return HookedTransformer(HookedTransformerConfig(**fields)).eval()


def load_raw(config, weights):
    """The model with its weights as they are; complains of missing and unknown ones."""
    model = build(config)
    missing, unknown = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not is_buffer(name)]
    if missing or unknown:
        raise SystemExit(f"the weights do not fit the configuration: missing {missing}, unknown {unknown}")
    return model


def load_processed(config, weights, **steps):
    """The model with processed weights. The steps work in the weights' own dtype, which must be float64."""
    model = build(config)  # what folding removes stays at its initial values here: w = 1, b = 0
    fold_ln = config.get("normalization_type", "LN") == "LN"
    model.load_and_process_state_dict(dict(weights), fold_ln=fold_ln, **steps)
    return model


def mask_pad_keys(model, pad_token):
    """Give keys at `pad_token` the score -1e5, by permanent hooks; returns the function that runs the model."""
    pad_key = None

    def hook_attn_scores(scores, hook):  # [batch, head, query, key]
        return torch.where(pad_key, PAD_SCORE, scores)

    if pad_token is not None:
        for block in model.blocks:
            block.attn.hook_attn_scores.add_hook(hook_attn_scores, is_permanent=True)

    def run(tokens, with_cache=False):
        nonlocal pad_key
        pad_key = (tokens == pad_token)[:, None, None, :] if pad_token is not None else None
        return model.run_with_cache(tokens, return_cache_object=False) if with_cache else model(tokens)

    return run


def save(tensors, path):
    for name, x in tensors.items():
        if x.is_floating_point() and path.name != "model.safetensors":
            assert x.dtype == torch.float64, f"{path.name}: {name} is {x.dtype}"
    save_file({name: x.detach().contiguous().clone() for name, x in tensors.items()}, path)


def save_weights(model, path, dtype=torch.float64):
    save({k: v.to(dtype) for k, v in model.state_dict().items() if not is_buffer(k)}, path)


def save_logits(run, tokens, path):
    save({"logits": torch.cat([run(batch) for batch in tokens.split(BATCH)])}, path)


def save_activations(model, run, tokens, path):
    model.set_use_attn_result(True)
    logits, cache = run(tokens, with_cache=True)
    model.set_use_attn_result(False)
    save(dict(cache) | {"logits": logits, "tokens": tokens}, path)


@torch.no_grad()
def make_reference(config, weights, dataset, out, refactor=False):
    """Everything but config.json and checkpoint.pt. `weights`: a state dict; `dataset`: `tokens` and labels."""
    out.mkdir(parents=True, exist_ok=True)
    pad_token, tokens = config.get("pad_token"), dataset["tokens"]
    # Through float32, so that model.safetensors holds the very weights that the figures come from.
    weights = {k: v.float().double() if v.is_floating_point() else v for k, v in weights.items()}

    raw = load_raw(config, weights)
    models = {"raw": raw, "processed": load_processed(config, weights)}
    save_weights(raw, out / "model.safetensors", torch.float32)
    save_weights(models["processed"], out / "processed.safetensors")
    save(dataset, out / "dataset.safetensors")
    if refactor:
        models["refactored"] = load_processed(config, weights, refactor_factored_attn_matrices=True)
        save_weights(models["refactored"], out / "processed_refactored.safetensors")
    for name, model in models.items():
        run = mask_pad_keys(model, pad_token)
        save_logits(run, tokens, out / f"logits_{name}.safetensors")
        if name != "refactored":
            save_activations(model, run, tokens[:N_ACTIVATIONS], out / f"activations_{name}.safetensors")
    return raw


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="a .pt or .safetensors state dict, or a folder with model.safetensors")
    parser.add_argument("--config", type=Path, help="config.json (default: the one beside the weights)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", type=Path, help="a safetensors file with `tokens` [n, pos] and any labels")
    source.add_argument("--random", type=int, metavar="N", help="N sequences of uniformly random tokens instead")
    parser.add_argument("--length", type=int, help="with --random: length of a sequence (default: n_ctx)")
    parser.add_argument("--seed", type=int, default=0, help="with --random: the seed (default: 0)")
    parser.add_argument("--refactor", action="store_true", help="also apply refactor_factored_attn_matrices")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    args = parser.parse_args(argv)

    folder = args.weights if args.weights.is_dir() else args.weights.parent
    config_path = args.config or folder / "config.json"
    config_text = config_path.read_text()
    config = json.loads(config_text)
    if args.tokens:
        dataset = load_file(args.tokens)
        dataset["tokens"] = dataset["tokens"].long()
    else:
        size = (args.random, args.length or config["n_ctx"])
        generator = torch.Generator().manual_seed(args.seed)
        dataset = {"tokens": torch.randint(config["d_vocab"], size, generator=generator)}

    model = make_reference(config, read_weights(args.weights), dataset, args.out, args.refactor)
    (args.out / "config.json").write_text(config_text)
    checkpoint = args.out / "checkpoint.pt"
    if args.weights.suffix != ".safetensors" and args.weights.is_file():
        if args.weights.resolve() != checkpoint.resolve():
            shutil.copyfile(args.weights, checkpoint)
    else:
        torch.save({k: v.float() if v.dtype == torch.float64 else v for k, v in model.state_dict().items()}, checkpoint)


if __name__ == "__main__":
    main()
