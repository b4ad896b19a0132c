#!/usr/bin/env python3
"""Language models at the sizes of GPT-2 small and SmolLM2-135M: every implementation in turn on every work, several
times over, and a table of medians and peak memory.

Each is a process of its own: `language.py` for transformers and TransformerLens, the crate in `candle/` for
candle-transformers (which has no GPT-2, and whose LLaMA gives the logits of the last position alone), and
`cargo bench --bench language` for pathsum. What the machine gives at best, a large product on each core at once and reading
memory, is measured by the last in the same run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

# A process takes over the peak memory of the one that starts it: this one imports nothing large.
from timing import LANGUAGE_WORKS

EXAMPLE = "example: python race_language.py --rounds 3 --models smollm2"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SIDES = ["transformers", "transformer_lens", "candle", "pathsum"]
# TransformerLens keeps keys and values only of models with a tokenizer.
NOT_THERE = {("gpt2", "candle"), ("64_one_by_one", "transformer_lens")}
# Operations of a forward pass at a position, and the bytes of the weights that one token reads.
PARAMETERS = {"gpt2": 12 * 12 * 768**2 + 768 * 50257, "smollm2": 30 * (2 * 576**2 + 2 * 576 * 192 + 3 * 576 * 1536) + 576 * 49152}


def output_and_peak(command, env=None):
    """What a command prints, and the most memory that it took, in MB."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"`{' '.join(map(str, command))}` failed")
    return output, usage.ru_maxrss // 1024


def bench():
    """The benchmark's program and the folder where criterion leaves what it measured."""
    built = subprocess.run(["cargo", "bench", "--no-run", "--bench", "language", "--message-format=json"], cwd=ROOT,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    lines = map(json.loads, built.splitlines())
    program = [line["executable"] for line in lines if line.get("target", {}).get("name") == "language"][-1]
    return Path(program)


def criterion(program, work, env):
    _, peak = output_and_peak([program, "--bench", "--exact", work, "--noplot", "--warm-up-time", "0.5",
                               "--measurement-time", "3"], env)
    # criterion writes beside the target folder that its program lies in.
    found = program.parents[2] / "criterion" / work / "new" / "estimates.json"
    return json.loads(found.read_text())["median"]["point_estimate"] * 1e-9, peak


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each (default: all cores)")
    parser.add_argument("--models", nargs="*", choices=PARAMETERS, default=list(PARAMETERS))
    parser.add_argument("--works", nargs="*", choices=LANGUAGE_WORKS, default=LANGUAGE_WORKS)
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES)
    args = parser.parse_args()

    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    program = bench() if "pathsum" in args.sides else None
    candle = HERE / "candle"
    if "candle" in args.sides:
        subprocess.run(["cargo", "build", "--quiet", "--release"], cwd=candle, check=True)
        target = json.loads(subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=candle,
                                           stdout=subprocess.PIPE, text=True, check=True).stdout)["target_directory"]

    def measure(side, model, work):
        if side == "pathsum":
            return criterion(program, f"{model}/{work}", env)
        if side == "candle":
            output, peak = output_and_peak([f"{target}/release/candle-peer", work, "2"], env)
        else:
            output, peak = output_and_peak([sys.executable, HERE / "language.py", "--by", side, "--model", model, "--work",
                                            work, "--threads", str(args.threads), "--seconds", "2"], env)
        return json.loads(output.splitlines()[-1])["median_s"], peak

    works = [(model, work) for model in args.models for work in args.works]
    seen, best = {}, {"product": [], "read": []}
    for i in range(args.rounds):
        if program:
            for name, amount in [("product", 2 * args.threads * 1024**3 / 1e9), ("read", 2**29 / 1e9)]:
                best[name].append(amount / criterion(program, f"machine/{name}", env)[0])
        for model, work in works:
            for side in args.sides:
                if (model, side) in NOT_THERE or (work, side) in NOT_THERE:
                    continue
                print(f"round {i + 1} of {args.rounds}: {model} {work} {side}", file=sys.stderr)
                seen.setdefault((model, work, side), []).append(measure(side, model, work))

    def cell(key):
        if key not in seen:
            return "–"
        seconds, peaks = zip(*seen[key])
        return f"{statistics.median(seconds) * 1e3:.0f} ms, {max(peaks)} MB"

    print("| model | work |", " | ".join(args.sides), "| times as fast as the next | of the machine |")
    print("|" + "---|" * (len(args.sides) + 4))
    for model, work in works:
        median = {side: statistics.median(s for s, _ in seen[model, work, side]) for side in args.sides
                  if (model, work, side) in seen}
        ours = median.pop("pathsum", None)
        ratio = f"{min(median.values()) / ours:.2f}" if ours and median else "–"
        share = "–"
        if ours and work == "64_one_by_one":
            share = f"{64 * 4 * PARAMETERS[model] / 1e9 / ours / statistics.median(best['read']):.0%} of reading"
        elif ours:
            batch, pos = map(int, work.split("x"))
            rate = 2 * PARAMETERS[model] * batch * pos / 1e9 / ours
            share = f"{rate / statistics.median(best['product']):.0%} of products"
        print(f"| {model} | {work} |", " | ".join(cell((model, work, side)) for side in args.sides), f"| {ratio} | {share} |")
    if program:
        rates = {name: statistics.median(rates) for name, rates in best.items()}
        print(f"\n{args.rounds} rounds, {args.threads} threads; the machine at best: products of {rates['product']:.0f} GFLOP/s, "
              f"reading of {rates['read']:.1f} GB/s.")


if __name__ == "__main__":
    main()
