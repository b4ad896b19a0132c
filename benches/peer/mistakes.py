#!/usr/bin/env python3
"""Makes dumps of models with one mistake each, and asks `pathsum diff` where it is.

    python mistakes.py --reference REFERENCE --program target/release/pathsum

REFERENCE has `language/families`, tiny models as `save_pretrained` writes them. Each mistake is made on a model of
transformers, which is then run in float64 by `docs/make_reference.py`; what comes out is compared with the folder as it
is. The first value that differs must be what the operation with the mistake gives. Then the models as they are, in
float32 and bfloat16 and with all that transformers does in float32, must not differ anywhere.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def make_reference():
    path = os.path.join(HERE, "..", "..", "docs", "make_reference.py")
    spec = importlib.util.spec_from_file_location("make_reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_reference"] = module
    spec.loader.exec_module(module)
    return module


def rounded(x):
    """As float32 has it, in float64. By numpy: torch's own casts are watched."""
    import torch

    return torch.from_numpy(x.detach().numpy().astype("float32").astype("float64"))


def zero(tensor, rows=slice(None)):
    tensor.data[rows] = 0


def swapped(first, second):
    """Exchanges what two modules hold."""
    a, b = first.state_dict(), second.state_dict()
    a, b = ({name: value.clone() for name, value in own.items()} for own in (a, b))
    first.load_state_dict(b)
    second.load_state_dict(a)


def roll_heads(tensor, d_head, axis=0):
    tensor.data = tensor.data.roll(d_head, axis)


def of_gpt2(model):
    return model.transformer, model.transformer.h[1], model.config.n_embd, model.config.n_embd // model.config.n_head


def gpt2_float32_norm(model):
    import torch

    norm = of_gpt2(model)[1].ln_1
    original = norm.forward
    norm.forward = lambda x: rounded(original(rounded(x)))
    assert isinstance(norm, torch.nn.LayerNorm)


def replaced(owner, name, module):
    setattr(owner, name, module)


def module_function(model, name, make):
    """Replaces a function of the module that a model's class is from, for this process."""
    module = sys.modules[type(model).__module__]
    setattr(module, name, make(getattr(module, name)))
    return lambda: setattr(module, name, getattr(module, name).original)


def keeping(original, function):
    function.original = original
    return function


def tiled(original):
    """Keys and values repeated in turn, where each should be repeated in a row."""

    def repeat(states, times):
        return states.repeat(1, times, 1, 1)

    return keeping(original, repeat)


def reversed_slopes(original):
    def slopes(mask, heads, dtype):
        batch, pos = mask.shape
        return original(mask, heads, dtype).reshape(batch, heads, 1, pos).flip(1).reshape(batch * heads, 1, pos)

    return keeping(original, slopes)


def mistakes():
    """`(family, what is wrong, how it is made, the values one of which must differ first)`"""
    from torch import nn

    def head(model):
        import torch

        out = nn.Linear(model.lm_head.in_features, model.lm_head.out_features, bias=False, dtype=torch.float64)
        out.weight.data = model.lm_head.weight.data.roll(1, 0)
        model.lm_head = out

    q, k, v, pattern = (f"blocks.1.attn.hook_{name}" for name in ("q", "k", "v", "pattern"))
    rot_q, rot_k = "blocks.0.attn.hook_rot_q", "blocks.0.attn.hook_rot_k"
    attn_out, mlp_out, first = "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out", "blocks.0.hook_resid_pre"
    qkv = [q, k, v]

    def block(model):
        return model.model.layers[1]

    def gpt2(change):
        return lambda model: change(*of_gpt2(model))

    return [
        ("gpt2", "b_Q left out", gpt2(lambda t, b, d, h: zero(b.attn.c_attn.bias, slice(0, d))), [q]),
        ("gpt2", "b_K left out", gpt2(lambda t, b, d, h: zero(b.attn.c_attn.bias, slice(d, 2 * d))), [k]),
        ("gpt2", "b_V left out", gpt2(lambda t, b, d, h: zero(b.attn.c_attn.bias, slice(2 * d, 3 * d))), [v]),
        ("gpt2", "b_O left out", gpt2(lambda t, b, d, h: zero(b.attn.c_proj.bias)), [attn_out]),
        ("gpt2", "b_in left out", gpt2(lambda t, b, d, h: zero(b.mlp.c_fc.bias)), [mlp_out]),
        ("gpt2", "b_out left out", gpt2(lambda t, b, d, h: zero(b.mlp.c_proj.bias)), [mlp_out]),
        ("gpt2", "eps of 1e-6 for 1e-5", gpt2(lambda t, b, d, h: replaced(b.ln_1, "eps", 1e-6)), qkv),
        ("gpt2", "two norms exchanged", gpt2(lambda t, b, d, h: swapped(b.ln_1, b.ln_2)), qkv),
        ("gpt2", "GELU by another formula", gpt2(lambda t, b, d, h: replaced(b.mlp, "act", nn.GELU())), [mlp_out]),
        ("gpt2", "positions one off", gpt2(lambda t, b, d, h: roll_heads(t.wpe.weight, 1)), [first]),
        ("gpt2", "W_O by another order of heads", gpt2(lambda t, b, d, h: roll_heads(b.attn.c_proj.weight, h)), [attn_out]),
        ("gpt2", "scores not scaled", gpt2(lambda t, b, d, h: replaced(b.attn, "scale_attn_weights", False)), [pattern]),
        (
            "gpt2",
            "scores scaled by layer",
            gpt2(lambda t, b, d, h: replaced(b.attn, "scale_attn_by_inverse_layer_idx", True)),
            [pattern],
        ),
        ("gpt2", "a norm in float32", gpt2_float32_norm, qkv),
        ("gpt2", "the last norm skipped", gpt2(lambda t, b, d, h: replaced(t, "ln_f", nn.Identity())), ["ln_final.hook_normalized"]),
        ("gpt2", "the unembedding one token off", head, ["logits"]),
        ("llama", "another base of the rotations", lambda m: m.model.rotary_emb.inv_freq.mul_(1.01), [rot_q, rot_k]),
        ("llama", "eps of the last norm", lambda m: replaced(m.model.norm, "variance_epsilon", 1e-4), ["ln_final.hook_normalized"]),
        ("llama", "GELU for SiLU", lambda m: replaced(block(m).mlp, "act_fn", nn.GELU()), [mlp_out]),
        ("llama", "gate and what is gated exchanged", lambda m: swapped(block(m).mlp.gate_proj, block(m).mlp.up_proj), [mlp_out]),
        ("llama", "groups of keys in turn", lambda m: module_function(m, "repeat_kv", tiled), ["blocks.0.attn.hook_pattern"]),
        (
            "llama",
            "W_K by another order of groups",
            lambda m: roll_heads(block(m).self_attn.k_proj.weight, block(m).self_attn.head_dim),
            [k],
        ),
        ("gemma2", "the cap of scores forgotten", lambda m: replaced(block(m).self_attn, "attn_logit_softcapping", None), [pattern]),
        ("gemma2", "the cap of logits forgotten", lambda m: replaced(m.config, "final_logit_softcapping", None), ["logits"]),
        ("gemma2", "a window one larger", lambda m: replaced(m.config, "sliding_window", m.config.sliding_window + 1), ["blocks.0.attn.hook_pattern"]),
        (
            "gemma2",
            "the norm of what attention writes skipped",
            lambda m: replaced(block(m), "post_attention_layernorm", nn.Identity()),
            [attn_out],
        ),
        ("gemma2", "the one of 1 + w forgotten", lambda m: block(m).input_layernorm.weight.data.sub_(1), qkv),
        ("gemma2", "the embedding not scaled", lambda m: m.model.embed_tokens.weight.data.div_(m.config.hidden_size**0.5), [first]),
        ("bloom", "slopes of the heads reversed", lambda m: module_function(m, "build_alibi_tensor", reversed_slopes), ["blocks.0.attn.hook_pattern"]),
        ("pythia", "one after the other for side by side", lambda m: replaced(m.gpt_neox.layers[1], "use_parallel_residual", False), [mlp_out]),
        ("qwen3", "the norm of queries skipped", lambda m: replaced(block(m).self_attn, "q_norm", nn.Identity()), ["blocks.1.attn.hook_rot_q"]),
        ("bert", "segments ignored", lambda m: zero(m.bert.embeddings.token_type_embeddings.weight), ["hook_full_embed"]),
        ("bert", "eps of a norm over the stream", lambda m: replaced(m.bert.encoder.layer[1].attention.output.LayerNorm, "eps", 1e-5), ["blocks.1.ln1.hook_normalized"]),
        ("opt", "positions without their offset", lambda m: replaced(m.model.decoder.embed_positions, "offset", 0), [first]),
    ]


def diff(program, folder, dump, *more):
    command = [program, "diff", folder, dump, "--json", *more]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode not in (0, 1):
        sys.exit(result.stderr)
    values = json.loads(result.stdout)["values"]
    return [value for value in values if not value["error"] <= value["tolerance"]], values


def plain(reference, folder, given, dtype):
    """Activations as transformers gives them in another precision."""
    import torch

    model, family, config = reference.load(folder)
    model = model.to(dtype)
    original = reference.float32_means_float64, reference.watch_for_narrow_floats
    reference.float32_means_float64 = reference.watch_for_narrow_floats = contextlib.nullcontext
    try:
        out = reference.activations(model, family, config, **given)
    finally:
        reference.float32_means_float64, reference.watch_for_narrow_floats = original
    assert torch.get_default_dtype() == torch.float32
    return {name: value.to(dtype) for name, value in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--reference", default=os.environ.get("PATHSUM_REFERENCE"), help="the folder of reference models")
    parser.add_argument("--program", default="target/release/pathsum")
    options = parser.parse_args()
    if not options.reference:
        parser.error("--reference, or PATHSUM_REFERENCE, is needed")
    import safetensors.torch

    reference = make_reference()
    families = os.path.join(options.reference, "language", "families")
    scratch = tempfile.mkdtemp()
    dump = os.path.join(scratch, "dump.safetensors")
    failed = 0
    for family_name, what, change, expected in mistakes():
        folder = os.path.join(families, family_name)
        given = reference.read_tokens(os.path.join(folder, "activations.safetensors"))
        model, family, config = reference.load(folder)
        undo = change(model)
        try:
            out = reference.activations(model, family, config, **given)
        finally:
            if callable(undo):
                undo()
        safetensors.torch.save_file({**given, **out}, dump)
        differ, _ = diff(options.program, folder, dump)
        first = differ[0]["name"] if differ else "nothing"
        right = first in expected
        failed += not right
        print(f"{'found' if right else 'MISSED':7} {family_name:8} {what}: {len(differ)} differ, the first is {first}")
    import torch

    for family_name in sorted(os.listdir(families)):
        folder = os.path.join(families, family_name)
        if not os.path.isdir(folder):
            continue
        given = reference.read_tokens(os.path.join(folder, "activations.safetensors"))
        for dtype in (torch.float32, torch.bfloat16):
            out = plain(reference, folder, given, dtype)
            safetensors.torch.save_file({**given, **out}, dump)
            differ, values = diff(options.program, folder, dump)
            failed += bool(differ)
            worst = max(value["error"] / value["tolerance"] for value in values)
            verdict = "FALSE" if differ else "quiet"
            print(f"{verdict:7} {family_name:8} {dtype}: {len(values)} values, at most {worst:.2f} of what is allowed")
            for value in differ:
                print(f"        {value['name']}: {value['error']:.1e} of {value['tolerance']:.1e}")
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
