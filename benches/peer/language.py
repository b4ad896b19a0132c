#!/usr/bin/env python3
"""Time language models at the sizes of GPT-2 small and SmolLM2-135M, in float32 on the CPU, with random weights.

    1x16, 1x128, 4x256, 1x1024   a forward pass of so many sequences of so many tokens, all logits
    64_one_by_one                64 tokens, one by one, after a prompt of 16; keys and values kept

One work of one model of one implementation, in a process of its own, so that its peak memory is its own. Prints a JSON
line: {"work": ..., "median_s": ..., "runs": ...}
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from timing import LANGUAGE_WORKS, measure

EXAMPLE = "example: python language.py --by transformers --model smollm2 --work 1x128"


def of_transformers(name):
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if name == "gpt2":
        model = GPT2LMHeadModel(GPT2Config())
    else:
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0,
            tie_word_embeddings=True))
    model.eval()

    def one_by_one(tokens):
        kept = model(tokens[:, :16], use_cache=True).past_key_values
        return lambda: [model(tokens[:, i:i + 1], past_key_values=kept, use_cache=True) for i in range(16, 80)]

    return lambda tokens: model(tokens, use_cache=False), one_by_one


def of_transformer_lens(name):
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.past_key_value_caching import HookedTransformerKeyValueCache

    shared = {"d_head": 64, "device": "cpu", "dtype": torch.float32, "init_weights": False}
    if name == "gpt2":
        config = HookedTransformerConfig(n_layers=12, d_model=768, n_heads=12, n_ctx=1024, d_vocab=50257,
                                         act_fn="gelu_new", normalization_type="LN", **shared)
    else:
        config = HookedTransformerConfig(
            n_layers=30, d_model=576, n_heads=9, n_ctx=2048, n_key_value_heads=3, d_vocab=49152, d_mlp=1536,
            act_fn="silu", gated_mlp=True, normalization_type="RMS", eps=1e-5, positional_embedding_type="rotary",
            rotary_dim=64, rotary_base=100000, rotary_adjacent_pairs=False, final_rms=True, **shared)
    model = HookedTransformer(config).eval()
    for parameter in model.parameters():
        parameter.normal_(0, 0.02)

    def one_by_one(tokens):
        kept = HookedTransformerKeyValueCache.init_cache(config, "cpu", 1)
        model(tokens[:, :16], past_kv_cache=kept)
        return lambda: [model(tokens[:, i:i + 1], past_kv_cache=kept) for i in range(16, 80)]

    return lambda tokens: model(tokens), one_by_one


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--by", choices=["transformers", "transformer_lens"], required=True)
    parser.add_argument("--model", choices=["gpt2", "smollm2"], required=True)
    parser.add_argument("--work", choices=LANGUAGE_WORKS, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=3, help="for how long to repeat it (default: 3)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    forward, one_by_one = {"transformers": of_transformers, "transformer_lens": of_transformer_lens}[args.by](args.model)
    if args.work == "64_one_by_one":
        tokens = torch.arange(80).mul(7919).remainder(49152)[None]
        # What is timed begins where the prompt was read; the first time is the warm-up.
        times = [timed(one_by_one(tokens)) for _ in range(6)][1:]
    else:
        batch, pos = map(int, args.work.split("x"))
        tokens = torch.arange(batch * pos).mul(7919).remainder(49152).view(batch, pos)
        times = measure(lambda: forward(tokens), args.seconds, least=5)
    print(f'{{"work": "{args.work}", "median_s": {statistics.median(times)}, "runs": {len(times)}}}')


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
