#!/usr/bin/env python3
"""Run TransformerLens's measurement and pathsum's in turn, several times over, and print a table.

TransformerLens's side prints JSON lines, {"work": ..., "median_s": ...}; pathsum's is `cargo bench --bench ...`,
whose medians criterion leaves under target/criterion. The table gives, for each work, the median over the rounds
of each one's medians and the ratio of the two, then the same for each one's best round. Where the two ratios are
far apart, something else was running: only the second can be trusted then, and a second run is better.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

EXAMPLE = """examples:
  python compare.py --reference /path/to/reference
  python compare.py --rounds 9 --threads 1
  python compare.py --bench algebra --rounds 1
"""
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# For each benchmark criterion's group, and the rows: what the peer's script calls the work, and what ours does.
GROUPS = {
    "forward": ("palindrome", [("forward_2500",) * 2, ("forward_1",) * 2, ("cache_2500",) * 2,
                               ("cache_2500", "cache_2500_first")]),
    "interventions": ("interventions", [("ablate_heads",) * 2, ("patch_resid_pre",) * 2, ("patch_z",) * 2,
                                        ("patch_resid_pre_whole",) * 2, ("patch_z_whole",) * 2]),
    "algebra": ("algebra", [("composition",) * 2, ("svd",) * 2, ("svd_factored", "svd"), ("top_10",) * 2]),
    "gradient": ("gradient", [("every_hook_2500",) * 2, ("every_hook_2500", "every_hook_2500_first")]),
    "patching": ("patching", [("attribution",) * 2, ("edge_attribution",) * 2, ("patch_z",) * 2]),
    "train": ("train", [("epoch_by_100",) * 2, ("epoch_by_500",) * 2, ("epoch_full_batch",) * 2]),
}


def run(command, env, **options):
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"`{shlex.join(command)}` failed with exit code {done.returncode}")
    return done.stdout


def transformer_lens(command, env):
    """The medians that the peer's script prints, by work."""
    lines = [json.loads(line) for line in run(command, env).splitlines() if line.startswith("{")]
    return {line["work"]: line["median_s"] for line in lines}


def pathsum(bench, env):
    """The medians of pathsum's benchmark, by work."""
    command = f"cargo bench --quiet --bench {bench} -- --warm-up-time 1 --measurement-time 3"
    run(shlex.split(command), env)
    target = Path(json.loads(run(["cargo", "metadata", "--no-deps", "--format-version=1"], env))["target_directory"])
    group, rows = GROUPS[bench]
    estimates = {work: target / "criterion" / group / work / "new" / "estimates.json" for _, work in rows}
    return {work: json.loads(path.read_text())["median"]["point_estimate"] * 1e-9
            for work, path in estimates.items()}


def table(bench, rounds):
    """`rounds`: a pair (TransformerLens's medians, pathsum's medians) for each round."""
    rows = ["| work | TransformerLens | pathsum | times faster | best rounds | times faster |", "|---|---|---|---|---|---|"]
    for names in GROUPS[bench][1]:
        sides = [[side[name] for side in sides] for name, sides in zip(names, zip(*rounds))]
        work = " / ".join(dict.fromkeys(names))
        (theirs, ours), (their_best, our_best) = map(statistics.median, sides), map(min, sides)
        rows.append(f"| {work} | {show(theirs)} | {show(ours)} | {theirs / ours:.1f} "
                    f"| {show(their_best)}, {show(our_best)} | {their_best / our_best:.1f} |")
    return "\n".join(rows)


def show(seconds):
    return f"{seconds * 1e3:.3f} ms"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, default=os.environ.get("PATHSUM_REFERENCE"),
                        help="the folder of reference models (default: $PATHSUM_REFERENCE)")
    parser.add_argument("--bench", choices=GROUPS, default="forward", help="what to compare (default: forward)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each of the two runs (default: 5)")
    parser.add_argument("--seconds", type=float, default=5, help="TransformerLens's seconds a work (default: 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each (default: all cores)")
    args = parser.parse_args()
    if args.bench not in ["algebra", "patching"] and args.reference is None:
        parser.error("give --reference, or set PATHSUM_REFERENCE")
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")

    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    if args.reference is not None:
        env["PATHSUM_REFERENCE"] = str(Path(args.reference).resolve())
    peer = [sys.executable, str(HERE / f"{args.bench}.py"), "--threads", str(args.threads), "--seconds", str(args.seconds)]
    load, rounds = os.getloadavg()[0], []
    for i in range(args.rounds):
        print(f"round {i + 1} of {args.rounds}", file=sys.stderr)
        theirs = transformer_lens(peer, env)
        rounds.append((theirs, pathsum(args.bench, env)))
    print(f"{args.rounds} rounds, {args.threads} threads, load average at the start {load:.2f}\n\n{table(args.bench, rounds)}")


if __name__ == "__main__":
    main()
