#!/usr/bin/env python3
"""Makes reference activations of a Hugging Face language model in float64.

    python make_reference.py MODEL_FOLDER OUT.safetensors --tokens TOKENS.safetensors
    python make_reference.py MODEL_FOLDER OUT.safetensors --random 3,24 --seed 7

MODEL_FOLDER is a folder as `save_pretrained` writes it (config.json and weights). OUT.safetensors gets `tokens`
(and `attention_mask`, `token_type_ids` where TOKENS.safetensors has them) and, in float64, every activation under
TransformerLens's name:

    blocks.L.hook_resid_pre, hook_resid_mid (not where attention and MLP are parallel), hook_resid_post
    blocks.L.hook_attn_out, hook_mlp_out: what is added to the stream (after a second norm, where there is one)
    blocks.L.attn.hook_q, hook_k, hook_v: [batch, pos, head or group, d_head], before norms and rotations
    blocks.L.attn.hook_rot_q, hook_rot_k: the same after norms and rotations, the unrotated part included
    blocks.L.attn.hook_pattern: [batch, head, query, key]
    ln_final.hook_normalized, logits
    where norms come after the sums (BERT, RoBERTa, OPT-350m): hook_resid_mid and hook_resid_post are the sums,
    blocks.L.ln1.hook_normalized and blocks.L.hook_normalized_resid_post the norms' outputs; BERT and RoBERTa have
    hook_full_embed in place of hook_resid_pre

Needs: pip install torch 'transformers==4.57.*' safetensors numpy

`transformers` computes norms, softmaxes, rotations, slopes and soft caps in float32 whatever the model's type. Here
the names `torch.float32`, `torch.float` and `Tensor.float` mean float64 while a model is built and run, and every
operation of the forward pass is watched: one that yields anything narrower than float64 is an error.

What a model keeps in float32 as its own constants stays as it is, computed with in float64: Gemma-3's scale of the
embeddings, GPT-J's scale of the scores and its frequencies. pathsum has the same constants.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


class Refused(Exception):
    """What the user gave cannot be done; the message is one line."""


# ---------------------------------------------------------------------------------------------------------------
# Where each family keeps what. Paths are attributes of the module named in the comment.


@dataclasses.dataclass(frozen=True)
class Family:
    body: tuple  # of the model: where the body may be, first found wins ("" is the model itself)
    blocks: str  # of the body: the list of blocks
    attn: str  # of a block: the attention; it knows head_dim (or head_size, attention_head_size)
    qkv: tuple  # of the attention: three projections, or one fused
    fused: str  # how one projection holds three: "" | "thirds" | "per head" | "groups"
    attn_out: str  # of a block: the module whose output is added to the stream by the attention
    mlp_out: str  # of a block: the module whose output is added to the stream by the MLP
    norms: tuple  # of a block: its two norms. Before: the second reads the middle. After: both read the sums
    ln_final: str  # of the body; "" if there is none
    rotary: bool = False
    embed: str = ""  # of the body: the embedding, for hook_full_embed
    parallel: object = lambda config: False
    after: object = lambda config: False  # norms after the sums


LLAMA = Family(
    body=("model", ""),
    blocks="layers",
    attn="self_attn",
    qkv=("q_proj", "k_proj", "v_proj"),
    fused="",
    attn_out="self_attn",
    mlp_out="mlp",
    norms=("input_layernorm", "post_attention_layernorm"),
    ln_final="norm",
    rotary=True,
)
GEMMA2 = dataclasses.replace(
    LLAMA,
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    norms=("input_layernorm", "pre_feedforward_layernorm"),
)
BERT = Family(
    body=("bert", "roberta", ""),
    blocks="encoder.layer",
    attn="attention.self",
    qkv=("query", "key", "value"),
    fused="",
    attn_out="attention.output.dense",
    mlp_out="output.dense",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    ln_final="",
    embed="embeddings",
    after=lambda config: True,
)
FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma": LLAMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2,
    "gemma3": dataclasses.replace(GEMMA2, body=("model.language_model",)),
    # OLMo-2 has no norm before either part: what the MLP reads is the middle of the block.
    "olmo2": dataclasses.replace(
        LLAMA, attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm", norms=("self_attn", "mlp")
    ),
    "phi3": dataclasses.replace(LLAMA, qkv=("qkv_proj",), fused="groups"),
    "phi": dataclasses.replace(
        LLAMA, ln_final="final_layernorm", norms=("input_layernorm", None), parallel=lambda config: True
    ),
    "gpt2": Family(
        body=("transformer", ""),
        blocks="h",
        attn="attn",
        qkv=("c_attn",),
        fused="thirds",
        attn_out="attn",
        mlp_out="mlp",
        norms=("ln_1", "ln_2"),
        ln_final="ln_f",
    ),
    "gptj": Family(
        body=("transformer", ""),
        blocks="h",
        attn="attn",
        qkv=("q_proj", "k_proj", "v_proj"),
        fused="",
        attn_out="attn",
        mlp_out="mlp",
        norms=("ln_1", None),
        ln_final="ln_f",
        rotary=True,
        parallel=lambda config: True,
    ),
    "gpt_neox": Family(
        body=("gpt_neox", ""),
        blocks="layers",
        attn="attention",
        qkv=("query_key_value",),
        fused="per head",
        attn_out="attention",
        mlp_out="mlp",
        norms=("input_layernorm", "post_attention_layernorm"),
        ln_final="final_layer_norm",
        rotary=True,
        parallel=lambda config: config.use_parallel_residual,
    ),
    "bloom": Family(
        body=("transformer", ""),
        blocks="h",
        attn="self_attention",
        qkv=("query_key_value",),
        fused="per head",
        attn_out="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
        norms=("input_layernorm", "post_attention_layernorm"),
        ln_final="ln_f",
    ),
    "opt": Family(
        body=("model.decoder", "decoder"),
        blocks="layers",
        attn="self_attn",
        qkv=("q_proj", "k_proj", "v_proj"),
        fused="",
        attn_out="self_attn",
        mlp_out="fc2",
        norms=("self_attn_layer_norm", "final_layer_norm"),
        ln_final="final_layer_norm",
        after=lambda config: not config.do_layer_norm_before,
    ),
    "bert": BERT,
    "roberta": BERT,
}


# ---------------------------------------------------------------------------------------------------------------
# float64 throughout


@contextlib.contextmanager
def float32_means_float64():
    """While this lasts, code that asks torch for float32 gets float64."""
    import torch

    before = torch.float32, torch.float, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        del torch.Tensor.float
        torch.float32, torch.float = before[:2]
        torch.set_default_dtype(before[2])


@contextlib.contextmanager
def built_in_float64(model_class):
    """While this lasts, models of this class are built (not read from files) with float64 for float32: what they
    compute beforehand, such as frequencies of rotations, is exact."""
    original = model_class.__init__

    def build(self, *args, **kwargs):
        with float32_means_float64():
            original(self, *args, **kwargs)

    model_class.__init__ = build
    try:
        yield
    finally:
        model_class.__init__ = original


def keep_constants(model):
    """Gives a model that was built in float64 the constants that it keeps in float32."""
    import torch

    for module in model.modules():
        name = type(module).__name__
        if name == "Gemma3TextScaledWordEmbedding":
            module.embed_scale = module.embed_scale.to(torch.float32).to(torch.float64)
        if name.startswith("GPTJ") and hasattr(module, "scale_attn"):
            module.scale_attn = torch.as_tensor(module.scale_attn).to(torch.float32).to(torch.float64)
            positions, width = module.embed_positions.shape
            frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            frequencies = frequencies.to(torch.float32).to(torch.float64)
            angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
            module.embed_positions = torch.cat([angles.sin(), angles.cos()], dim=1)


def watch_for_narrow_floats():
    """A dispatch mode that refuses every operation whose result is a float narrower than float64."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for value in tree_leaves(result):
                if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64:
                    raise Refused(f"{function} yields {value.dtype}: not all of this model runs in float64")
            return result

    return Watch()


# ---------------------------------------------------------------------------------------------------------------
# The model and its activations


def load(folder):
    """The model of a folder in float64, the table's row for it, and the configuration of its language part."""
    path = os.path.join(folder, "config.json")
    if not os.path.isfile(path):
        raise Refused(f"{folder} has no config.json")
    try:
        raw = json.load(open(path))
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from error
    kind = raw.get("model_type")
    if kind not in FAMILIES:
        raise Refused(f"model_type {kind!r} of {path} is none of: {', '.join(sorted(FAMILIES))}")

    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    architecture = (raw.get("architectures") or [None])[0]
    model_class = getattr(transformers, architecture or "", None)
    try:
        if model_class is None:
            masked = kind in ("bert", "roberta")
            auto = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
            model_class = auto._model_mapping[type(transformers.AutoConfig.from_pretrained(folder))]
        with built_in_float64(model_class):
            model, info = model_class.from_pretrained(
                folder,
                dtype=torch.float64,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise Refused(f"{folder} cannot be loaded: {' '.join(str(error).split())}") from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise Refused(f"{folder} lacks {len(missing)} tensors, such as {missing[0]}")
    model.eval()
    keep_constants(model)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and value.dtype != torch.float64:
            raise Refused(f"{name} is {value.dtype} after loading, not float64")
    config = model.config.get_text_config()
    config.use_cache = False
    return model, FAMILIES[kind], config


def module_at(module, path):
    """The module at a dotted path, or None."""
    for name in path.split(".") if path else ():
        module = getattr(module, name, None)
    return module


class Recorder:
    """Hooks on a model's modules that keep what TransformerLens has a name for."""

    def __init__(self, model, family, config):
        self.kept = {}
        self.handles = []
        self.undo = []
        bodies = [module_at(model, path) for path in family.body]
        body = next((body for body in bodies if body is not None and module_at(body, family.blocks) is not None), None)
        if body is None:
            raise Refused(f"{type(model).__name__} has no {family.blocks} where {config.model_type} keeps them")
        blocks = module_at(body, family.blocks)
        attn = module_at(blocks[0], family.attn)
        names = ("head_dim", "head_size", "attention_head_size")
        self.d_head = next(getattr(attn, name) for name in names if hasattr(attn, name))
        if family.embed:
            self.output(body, family.embed, "hook_full_embed")
        for layer, block in enumerate(blocks):
            self.block(block, f"blocks.{layer}.", family, config)
        if family.ln_final and module_at(body, family.ln_final) is not None:
            self.output(body, family.ln_final, "ln_final.hook_normalized")
        if family.rotary:
            self.rotated(type(attn))

    def block(self, block, prefix, family, config):
        first, second = family.norms
        self.output(block, family.attn_out, prefix + "hook_attn_out")
        self.output(block, family.mlp_out, prefix + "hook_mlp_out")
        if not family.embed:
            self.input(block, "", prefix + "hook_resid_pre")
        if family.after(config):
            self.input(block, first, prefix + "hook_resid_mid")
            self.output(block, first, prefix + "ln1.hook_normalized")
            self.input(block, second, prefix + "hook_resid_post")
            self.output(block, second, prefix + "hook_normalized_resid_post")
        else:
            if not family.parallel(config):
                self.input(block, second, prefix + "hook_resid_mid")
            self.output(block, "", prefix + "hook_resid_post")

        attn = module_at(block, family.attn)
        names = [prefix + "attn.hook_" + letter for letter in "qkv"]
        if not family.fused:
            for projection, name in zip(family.qkv, names):
                self.output(attn, projection, name)
        else:
            self.output(attn, family.qkv[0], prefix + "fused")

    def input(self, module, path, name):
        def hook(module, args, kwargs):
            self.kept[name] = args[0] if args else kwargs["hidden_states"]

        self.handles.append(module_at(module, path).register_forward_pre_hook(hook, with_kwargs=True))

    def output(self, module, path, name):
        def hook(module, args, result):
            self.kept[name] = result[0] if isinstance(result, tuple) else result

        self.handles.append(module_at(module, path).register_forward_hook(hook))

    def rotated(self, attention):
        """Keeps queries and keys as the function that multiplies them gets them: `[batch, head, pos, d_head]`."""
        module = sys.modules[attention.__module__]
        # GPT-J has a method where the others have a function of their module; both get the module first.
        owner, name = (attention, "_attn") if hasattr(attention, "_attn") else (module, "eager_attention_forward")
        original = getattr(owner, name)

        def wrapped(attn, query, key, *args, **kwargs):
            for letter, value in (("q", query), ("k", key)):
                self.kept[f"blocks.{attn.layer_idx}.attn.hook_rot_{letter}"] = value.transpose(1, 2)
            return original(attn, query, key, *args, **kwargs)

        setattr(owner, name, wrapped)
        self.undo.append(lambda: setattr(owner, name, original))

    def close(self):
        for handle in self.handles:
            handle.remove()
        for undo in self.undo:
            undo()


def split_heads(name, value, family, config, d_head):
    """One activation per head, or a fused one as queries, keys and values per head."""
    batch, pos, _ = value.shape
    prefix = name.rsplit(".", 1)[0] + ".attn.hook_"
    heads = value.reshape(batch, pos, -1, d_head)
    if not name.endswith(".fused"):
        return {name: heads}
    if family.fused == "per head":  # q, k, v of head 0, then of head 1, ...
        parts = heads.reshape(batch, pos, -1, 3, d_head).unbind(3)
    elif family.fused == "thirds":  # all of q, then k, then v
        parts = heads.chunk(3, 2)
    else:  # the same, with fewer keys and values
        parts = heads.split([config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads], 2)
    return {prefix + letter: part for letter, part in zip("qkv", parts)}


def activations(model, family, config, tokens, attention_mask=None, token_type_ids=None):
    """Every activation of a forward pass, by name."""
    import torch

    given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
    given = {name: value for name, value in given.items() if value is not None}
    recorder = Recorder(model, family, config)
    try:
        with torch.no_grad(), float32_means_float64(), watch_for_narrow_floats():
            result = model(input_ids=tokens, output_attentions=True, **given)
    except (IndexError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise Refused(f"a forward pass on {tuple(tokens.shape)} tokens fails: {reason}") from error
    finally:
        recorder.close()

    batch, pos = tokens.shape
    out = {}
    for name, value in recorder.kept.items():
        if name.endswith((".hook_q", ".hook_k", ".hook_v", ".fused")):
            out.update(split_heads(name, value, family, config, recorder.d_head))
        elif "hook_rot_" in name:
            out[name] = value
        else:  # OPT lays batch and positions out as one axis for a part of the block
            out[name] = value.reshape(batch, pos, -1)
    for layer, pattern in enumerate(result.attentions):
        out[f"blocks.{layer}.attn.hook_pattern"] = pattern
    if getattr(result, "logits", None) is not None:
        out["logits"] = result.logits
    for name, value in out.items():
        if not torch.isfinite(value).all():
            raise Refused(f"{name} is not finite")
    return {name: value.to(torch.float64).contiguous().clone() for name, value in out.items()}


# ---------------------------------------------------------------------------------------------------------------
# The command


def read_tokens(path):
    """`tokens`, and `attention_mask` and `token_type_ids` where the file has them."""
    import safetensors.torch

    try:
        file = safetensors.torch.load_file(path)
    except Exception as error:
        raise Refused(f"{path} cannot be read: {error}") from error
    if "tokens" not in file:
        raise Refused(f"{path} has no tensor named tokens")
    kept = {name: file[name] for name in ("tokens", "attention_mask", "token_type_ids") if name in file}
    for name, value in kept.items():
        if value.dim() != 2 or value.is_floating_point():
            raise Refused(f"{name} of {path} is not [batch, pos] of integers")
        if value.shape != file["tokens"].shape:
            raise Refused(f"{name} of {path} has another shape than its tokens")
    return {name: value.long() for name, value in kept.items()}


def random_tokens(text, seed, d_vocab):
    import torch

    try:
        batch, pos = (int(part) for part in text.split(","))
    except ValueError:
        raise Refused(f"--random takes N,POS, such as 3,24, not {text}") from None
    if batch < 1 or pos < 1:
        raise Refused(f"--random takes two numbers above 0, not {text}")
    return {"tokens": torch.randint(d_vocab, (batch, pos), generator=torch.Generator().manual_seed(seed))}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", 1)[0],
        epilog="Families: " + ", ".join(sorted(FAMILIES)) + ".",
    )
    parser.add_argument("model", metavar="MODEL_FOLDER", help="config.json and weights, as save_pretrained writes them")
    parser.add_argument("out", metavar="OUT.safetensors", help="activations in float64, by TransformerLens's names")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--tokens",
        metavar="TOKENS.safetensors",
        help="a file with `tokens` [n, pos], and perhaps `attention_mask` and `token_type_ids`; "
        "activations made earlier will do",
    )
    which.add_argument("--random", metavar="N,POS", help="N random sequences of POS tokens")
    parser.add_argument("--seed", type=int, default=0, help="for --random (default 0)")
    options = parser.parse_args()
    try:
        model, family, config = load(options.model)
        if options.tokens:
            given = read_tokens(options.tokens)
        else:
            given = random_tokens(options.random, options.seed, config.vocab_size)
        most = int(given["tokens"].max())
        if most >= config.vocab_size or int(given["tokens"].min()) < 0:
            raise Refused(f"token {most} is not among the model's {config.vocab_size}")
        out = activations(model, family, config, **given)
        import safetensors.torch

        try:
            safetensors.torch.save_file({**given, **out}, options.out)
        except Exception as error:
            raise Refused(f"{options.out} cannot be written: {error}") from error
    except (Refused, ImportError) as error:
        print(f"make_reference: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(out)} activations of {tuple(given['tokens'].shape)} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
