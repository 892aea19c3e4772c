"""Compare worst cases: theorem, certified constant, running bound and the worst error that a search finds, fp32, n = 4..18.

    python analysis/worst_case.py [--random 10000000] [--adversarial 100000] [--workers 2] [--seed 0]

The sets are those of Barabasz et al. 2020, kernel 3, Huffman order. Random trials are of several kinds: uniform, normal,
log-uniform magnitudes, few bits, cancelling, corners, subnormals. Adversarial inputs come from a local search over the
significands of inputs in [-1, 1]: bit flips, moves by some units in the last place, changed signs, copies of the best. Every
input is compared with its running bound. The exact result is direct convolution in float64, or in twice its precision if
needed. In 2-D there are a hundredth of the random trials and as many adversarial ones. Writes figures/worst_case.csv and .png.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from common import print_table, save, style, write_csv
from matplotlib.figure import Figure
from rich.progress import track

import fastconv as fc
from fastconv.error.measure.reference import direct_in_double_double, direct_in_float64

SIZES = range(4, 19)
HEADER = [
    "n",
    "dims",
    "points",
    "normwise",
    "theorem",
    "certified",
    "running_at_worst",
    "worst",
    "worst_random",
    "share_at_worst",
    "largest_share",
    "predicted_mean",
    "mean",
    "violations",
    "random",
    "adversarial",
]
KINDS = ("uniform", "normal", "log-uniform", "few bits", "cancelling", "corners", "subnormal")
VALUES_A_CHUNK = 2**21
"""Divided by n**2 (n**4 in 2-D), the tiles per chunk: every value of their programs is held at once."""
RESTARTS = 256


def algorithm(n: int, dims: int) -> fc.BilinearAlgorithm:
    return fc.toom_cook(n - 2, 3, fc.published_points("barabasz2020", n, dims))


def draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    match kind:
        case "uniform":
            values = rng.uniform(-1, 1, shape)
        case "normal":
            values = rng.normal(size=shape)
        case "log-uniform":
            values = rng.choice([-1.0, 1.0], shape) * np.exp2(rng.uniform(-40, 20, shape))
        case "few bits":
            values = rng.integers(-15, 16, shape) / 16
        case "cancelling":  # a smooth signal plus noise in its last bits
            values = rng.uniform(0.5, 1, (shape[0], *[1] * (len(shape) - 1))) + rng.normal(size=shape) * 2.0**-18
        case "corners":
            values = rng.choice([-1.0, 1.0], shape) * (1 - rng.integers(0, 64, shape) * 2.0**-24)
        case _:  # kernels or tiles so small that transforms and products underflow
            values = rng.normal(size=shape) * np.exp2(rng.uniform(-140, -60, (shape[0], *[1] * (len(shape) - 1))))
    return values.astype(np.float32)


def held_against_bound(alg: fc.BilinearAlgorithm, w: np.ndarray, x: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return errors, bounds and the number of violations, with the exact result in enough precision."""
    y, bound = fc.evaluate(alg, w, x, dims).astype(np.float64), fc.bound_error(alg, w, x, dims)
    error = np.abs(y - direct_in_float64(w, x, (1,) * dims, False))
    doubtful = (error > bound).reshape(len(w), -1).any(axis=1)
    wrong = 0
    if doubtful.any():
        high, low = direct_in_double_double(w[doubtful], x[doubtful], (1,) * dims, False)
        error[doubtful] = np.abs((y[doubtful] - high) - low)
        wrong = int((error > bound).sum())
    return error, bound, wrong


def summary(error: np.ndarray, bound: np.ndarray) -> tuple[float, float, float]:
    """Return the worst error, the running bound on it, and the largest share of its bound that any error reached."""
    at = np.unravel_index(error.argmax(), error.shape)
    share = np.divide(error, bound, out=np.zeros_like(error), where=bound > 0).max()
    return float(error[at]), float(bound[at]), float(share)


def random_trials(n: int, dims: int, trials: int, seed: int, kind: str) -> dict:
    alg, rng = algorithm(n, dims), np.random.default_rng([seed, n, dims, KINDS.index(kind)])
    found = {"violations": 0, "random": trials, "adversarial": 0, "worst_random": 0.0, "share": 0.0, "sum": 0.0, "uniform": 0}
    size = max(64, VALUES_A_CHUNK // n ** (2 * dims))
    for start in range(0, trials, size):
        count = min(size, trials - start)
        w, x = draw(rng, kind, (count, *[3] * dims)), draw(rng, kind, (count, *[n] * dims))
        error, bound, wrong = held_against_bound(alg, w, x, dims)
        worst, _, share = summary(error, bound)
        found["violations"] += wrong
        found["share"] = max(found["share"], share)
        if kind in ("uniform", "corners", "few bits"):  # those in [-1, 1]
            found["worst_random"] = max(found["worst_random"], worst)
        if kind == "uniform":
            found["sum"] += float(error.mean()) * count
            found["uniform"] += count
    return found


def search(n: int, dims: int, inputs: int, seed: int) -> dict:
    """Climb from many starts at once: a move is kept if the largest error of the tile does not fall."""
    alg, rng = algorithm(n, dims), np.random.default_rng([seed, n, dims, 1000])
    taps, size = 3**dims, n**dims
    found = {"violations": 0, "random": 0, "adversarial": 0, "worst": 0.0, "running_at_worst": 0.0, "share": 0.0}

    def tried(z: np.ndarray) -> np.ndarray:
        w, x = z[:, :taps].reshape(-1, *[3] * dims), z[:, taps:].reshape(-1, *[n] * dims)
        error, bound, wrong = held_against_bound(alg, w, x, dims)
        worst, running, share = summary(error, bound)
        found["violations"] += wrong
        found["adversarial"] += len(z)
        found["share"] = max(found["share"], share)
        if worst > found["worst"]:
            found["worst"], found["running_at_worst"] = worst, running
        return error.reshape(len(z), -1).max(axis=1)

    starts = np.concatenate([draw(rng, kind, (2 * RESTARTS, taps + size)) for kind in ("corners", "corners", "uniform")])
    score = tried(starts)
    best = np.argsort(score)[-RESTARTS:]
    z, score = starts[best], score[best]
    step = 0
    while found["adversarial"] < inputs:
        step += 1
        if step % 64 == 0:  # the worst quarter starts again from the best
            rank = np.argsort(score)
            quarter = RESTARTS // 4
            z[rank[:quarter]], score[rank[:quarter]] = z[rank[-quarter:]], score[rank[-quarter:]]
        moved = move(rng, z)
        new = tried(moved)
        better = new >= score
        z[better], score[better] = moved[better], new[better]
    return found


def move(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """Change one to three numbers of each input: a bit, some units in the last place, the sign, or the whole number."""
    moved, rows = z.copy(), np.arange(len(z))
    for k in range(3):
        active = rows[rng.random(len(z)) < 0.5**k]
        column = rng.integers(0, z.shape[1], len(active))
        value = moved[active, column]
        flipped = (value.view(np.int32) ^ (np.int32(1) << rng.integers(0, 23, len(active), np.int32))).view(np.float32)
        shifted = (value.view(np.int32) + rng.integers(-8, 9, len(active), np.int32)).view(np.float32)
        fresh = (rng.choice([-1, 1], len(active)) * (1 - rng.random(len(active)) * 2.0 ** -rng.integers(0, 20, len(active)))).astype("f4")
        kind = rng.random(len(active))
        new = np.select([kind < 0.5, kind < 0.75, kind < 0.8], [flipped, shifted, -value], fresh)
        moved[active, column] = np.clip(np.nan_to_num(new, nan=1.0), -1, 1)
    return moved


def job(task: tuple) -> tuple:
    kind, n, dims, count, seed = task
    return task, search(n, dims, count, seed) if kind == "search" else random_trials(n, dims, count, seed, kind)


def tasks(trials: int, adversarial: int, seed: int) -> list[tuple]:
    listed = []
    for n in reversed(SIZES):
        for dims in (2, 1):
            random = trials if dims == 1 else trials // 100
            counts = [random // len(KINDS)] * len(KINDS)
            counts[0] += random - sum(counts)
            listed += [(kind, n, dims, count, seed) for kind, count in zip(KINDS, counts, strict=True) if count]
            listed += [("search", n, dims, adversarial // 4, seed + k) for k in range(4)]
    return listed


def rows(found: dict) -> list[list]:
    table = []
    for n in SIZES:
        for dims in (1, 2):
            parts = [part for task, part in found.items() if task[1:3] == (n, dims)]
            alg = algorithm(n, dims)
            one = np.ones([3] * dims, "f4"), np.ones([n] * dims, "f4")
            theorem = float(fc.theorem_bound(alg, *one, dims).max())
            normwise = float(fc.theorem_bound(alg, *one, dims, kind="normwise"))
            certified = fc.certified_constant(alg, dims)
            worst = max((p for p in parts if "worst" in p), key=lambda p: p["worst"])
            random = max(p.get("worst_random", 0.0) for p in parts)
            mean = sum(p.get("sum", 0.0) for p in parts) / max(1, sum(p.get("uniform", 0) for p in parts))
            total = {name: sum(p[name] for p in parts) for name in ("violations", "random", "adversarial")}
            table.append(
                [
                    n,
                    dims,
                    " ".join(map(str, alg.points)),
                    normwise,
                    theorem,
                    certified,
                    worst["running_at_worst"],
                    worst["worst"],
                    random,
                    worst["worst"] / worst["running_at_worst"],
                    max(p["share"] for p in parts),
                    fc.predict_error(alg, dims=dims, inputs="uniform").mean_abs,
                    mean,
                    *total.values(),
                ]
            )
    return table


def figure_of(table: list[list]) -> Figure:
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    lines = [
        ("normwise theorem", "normwise"),
        ("componentwise theorem", "theorem"),
        ("certified constant", "certified"),
        ("running bound of the worst input", "running_at_worst"),
        ("worst error found", "worst"),
        ("mean, measured", "mean"),
    ]
    for ax, dims in zip(figure.subplots(1, 2), (1, 2), strict=True):
        part = [row for row in table if row[1] == dims]
        sizes = [row[0] for row in part]
        for k, (label, name) in enumerate(lines):
            ax.plot(sizes, [row[HEADER.index(name)] for row in part], label=label, **style(k))
        predicted = [row[HEADER.index("predicted_mean")] for row in part]
        ax.plot(sizes, predicted, label="mean, predicted", color="black", ls="none", marker="+", ms=10)
        ax.set(yscale="log", xlabel="tile size n = m + 2", ylabel="|error| of an output (inputs in [-1, 1])")
        ax.set_title(f"{dims}-D, fp32, Huffman order", loc="left", fontsize=11)
        ax.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=10**7)
    parser.add_argument("--adversarial", type=int, default=10**5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begun = time.monotonic()
    listed = tasks(args.random, args.adversarial, args.seed)
    with ProcessPoolExecutor(args.workers) as pool:
        found = dict(track(pool.map(job, listed), "trying", len(listed)))
    table = rows(found)
    shown = ["n", "dims", "theorem", "certified", "running_at_worst", "worst", "share_at_worst", "largest_share", "predicted_mean", "mean"]
    print_table(shown, [[row[HEADER.index(name)] for name in shown] for row in table])
    for dims in (1, 2):
        part = [row for row in table if row[1] == dims]
        random, adversarial, violations = (sum(row[HEADER.index(k)] for row in part) for k in ("random", "adversarial", "violations"))
        smallest = min(row[HEADER.index("share_at_worst")] for row in part if row[0] <= 8)
        print(
            f"{dims}-D: {violations} violations in {random:,} random and {adversarial:,} adversarial inputs;"
            f" for n <= 8 the worst input reaches at least {smallest:.0%} of its running bound"
        )
    write_csv("worst_case.csv", HEADER, table)
    save(figure_of(table), "worst_case.png")
    print(f"seed {args.seed}, {time.monotonic() - begun:.0f} s with {args.workers} workers")


if __name__ == "__main__":
    main()
