"""Run networks of torchvision and timm in fastconv and in onnxruntime, each in a process of its own, in turns.

    python benchmarks/zoo.py export FOLDER              # needs torch, torchvision, timm; random weights of a fixed seed
    python benchmarks/zoo.py race FOLDER [--threads 1 2] [--only REGEX] [--csv figures/zoo.csv]

A turn is a quarter of a second of calls; the result is the median of all calls of four turns. The error is the relative L2
distance of the first outputs. "first" is the time from the file to the first result, kernels on disk.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import contest
import numpy as np

TURNS, SECONDS, PAUSE = 4, 0.25, 0.02
RUNNERS = ("onnxruntime", "fastconv")
FAMILIES = {
    "vgg": "vgg11 vgg16_bn alexnet repvgg_a0",
    "cnn": "resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 googlenet inception_v3 squeezenet1_1 "
    "regnet_y_400mf regnet_x_1_6gf cspresnet50 darknet53 dla34 hrnet_w18_small res2net50_26w_4s seresnet50 convmixer_768_32 resnet26t",
    "mobile": "mobilenet_v2 mobilenet_v3_large mobilenet_v3_small mnasnet1_0 shufflenet_v2_x1_0 efficientnet_b0 efficientnet_v2_s "
    "ghostnet_100 tinynet_a mixnet_s mobilevit_s edgenext_small",
    "transformer": "convnext_tiny vit_b_16 swin_t maxvit_t vit_tiny_patch16_224 deit_small_patch16_224 mixer_s32_224 poolformer_s12 "
    "efficientformer_l1 levit_128s",
    "unet": "unet",
    "superres": "edsr dncnn",
}
SIDES = {"inception_v3": 299, "unet": 256, "edsr": 128, "dncnn": 256}
"""Height and width of the input, where it is not 224."""


def made(name: str) -> Any:
    """Return a network of torchvision, else of timm, with random weights."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # its wheels are for CUDA: without it, these are not defined
    try:
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:
        pass  # they are
    import timm
    import torchvision

    torch.manual_seed(0)
    if name in ("unet", "edsr", "dncnn"):
        return restoring(name)
    if not hasattr(torchvision.models, name):
        return timm.create_model(name, pretrained=False, exportable=True)
    settings = {"googlenet": {"aux_logits": False, "init_weights": True}, "inception_v3": {"init_weights": True}}.get(name, {})
    module = getattr(torchvision.models, name)(weights=None, **settings)
    if name == "inception_v3":
        module.aux_logits, module.AuxLogits = False, None
    return module


def restoring(name: str) -> Any:
    """Return a U-Net of four levels, EDSR of eight blocks with twice the pixels, or DnCNN of 17 layers."""
    from torch import cat
    from torch.nn import BatchNorm2d, Conv2d, ConvTranspose2d, MaxPool2d, Module, ModuleList, PixelShuffle, ReLU, Sequential

    def double(before: int, after: int) -> Any:
        return Sequential(Conv2d(before, after, 3, padding=1), ReLU(), Conv2d(after, after, 3, padding=1), ReLU())

    class UNet(Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = ModuleList([double(3, 32), double(32, 64), double(64, 128), double(128, 256)])
            self.up = ModuleList([ConvTranspose2d(2 * c, c, 2, 2) for c in (128, 64, 32)])
            self.joined = ModuleList([double(2 * c, c) for c in (128, 64, 32)])
            self.pool, self.last = MaxPool2d(2), Conv2d(32, 3, 1)

        def forward(self, x: Any) -> Any:
            kept = []
            for k, part in enumerate(self.down):
                x = part(x)
                if k < 3:
                    kept.append(x)
                    x = self.pool(x)
            for up, part in zip(self.up, self.joined, strict=True):
                x = part(cat([up(x), kept.pop()], 1))
            return self.last(x)

    class Residual(Module):
        def __init__(self, inner: Any, factor: float) -> None:
            super().__init__()
            self.inner, self.factor = inner, factor

        def forward(self, x: Any) -> Any:
            return x + self.inner(x) * self.factor

    conv = lambda before, after: Conv2d(before, after, 3, padding=1)
    if name == "unet":
        return UNet()
    if name == "edsr":
        blocks = [Residual(Sequential(conv(64, 64), ReLU(), conv(64, 64)), 0.1) for _ in range(8)]
        return Sequential(conv(3, 64), Residual(Sequential(*blocks), 1.0), conv(64, 256), PixelShuffle(2), conv(64, 3))
    inner = [part for _ in range(15) for part in (Conv2d(64, 64, 3, padding=1, bias=False), BatchNorm2d(64), ReLU())]
    return Residual(Sequential(conv(1, 64), ReLU(), *inner, conv(64, 1)), -1.0)


def settled(module: Any, x: Any) -> Any:
    """Set the statistics of batch normalisations to those of random inputs: random weights otherwise blow up."""
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
    module.train()
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(2):
            module(torch.randn(2, *x.shape[1:], generator=generator))
    return module.eval()


def export(folder: Path) -> None:
    """Write the networks as ONNX files."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for family, names in FAMILIES.items():
        for name in names.split():
            path, side = folder / f"{family}-{name}.onnx", SIDES.get(name, 224)
            if path.exists():
                continue
            x = torch.randn(1, 1 if name == "dncnn" else 3, side, side, generator=torch.Generator().manual_seed(1))
            torch.onnx.export(settled(made(name), x), (x,), str(path), opset_version=17, dynamo=False, input_names=["x"])
            print(path, flush=True)


def work(runner: str, path: str, threads: int) -> None:
    """Answer each number of seconds on the standard input with the times of the calls in it."""
    if runner == "onnxruntime":
        import onnxruntime

        begun = time.perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (info,), call = session.get_inputs(), lambda feeds: session.run(None, feeds)[0]
    else:
        import fastconv

        begun = time.perf_counter()
        net = fastconv.load_onnx(path)
        prepared, output = net.prepare(threads=threads), net.outputs[0].name
        (info,), call = net.inputs, lambda feeds: prepared(feeds)[output]
    shape = [length if isinstance(length, int) else 1 for length in info.shape]
    feeds = {info.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    y = call(feeds)
    print(json.dumps({"first": time.perf_counter() - begun, "y": np.asarray(y, np.float64).reshape(-1).tolist()}), flush=True)
    call(feeds)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while len(times) < 3 or time.perf_counter() < end:
            begun = time.perf_counter()
            call(feeds)
            times.append(time.perf_counter() - begun)
        print(json.dumps(times), flush=True)


def raced(path: Path, threads: int) -> dict[str, Any]:
    """Return one row of the table."""
    command = [sys.executable, __file__, "work", str(path), "--threads", str(threads), "--runner"]
    workers = {}
    for runner in RUNNERS:
        workers[runner] = subprocess.Popen([*command, runner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        answers = {runner: json.loads(worker.stdout.readline()) for runner, worker in workers.items()}  # type: ignore[union-attr]
        times: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
        for _ in range(TURNS):
            for runner, worker in workers.items():
                worker.stdin.write(f"{SECONDS}\n")  # type: ignore[union-attr]
                worker.stdin.flush()  # type: ignore[union-attr]
                times[runner] += json.loads(worker.stdout.readline())  # type: ignore[union-attr]
                time.sleep(PAUSE)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    theirs, ours = (np.array(answers[runner]["y"]) for runner in RUNNERS)
    medians = {runner: float(np.median(times[runner])) for runner in RUNNERS}
    return {
        "network": path.stem,
        "threads": threads,
        **{f"{runner}_ms": round(1e3 * medians[runner], 3) for runner in RUNNERS},
        "ratio": round(medians["onnxruntime"] / medians["fastconv"], 3),
        "error": float(f"{np.linalg.norm(ours - theirs) / (np.linalg.norm(theirs) or 1.0):.1e}"),
        **{f"{runner}_first": round(answers[runner]["first"], 3) for runner in RUNNERS},
    }


def race(folder: Path, threads: int, only: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each network."""
    for path in sorted(folder.glob("*.onnx")):
        if re.search(only, path.stem):
            try:
                yield raced(path, threads)
            except (json.JSONDecodeError, BrokenPipeError):
                yield {"network": path.stem, "threads": threads, "ratio": None}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "race", "work"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="", help="regular expression that names have to match")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--runner", choices=RUNNERS, default="fastconv", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.what == "export":
        return export(given.path)
    if given.what == "work":
        return work(given.runner, str(given.path), given.threads[0])
    rows = []
    for threads in given.threads:
        for row in race(given.path, threads, given.only):
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    for threads, family, ratios in by_family(rows):
        mean, least = np.exp(np.mean(np.log(ratios))), min(ratios)
        print(f"{family}, {threads} threads: {len(ratios)} networks, geometric mean {mean:.3f}, least {least:.3f}")
    if given.csv and rows:
        contest.write_rows(given.csv, rows)
    return None


def by_family(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, list[float]]]:
    """Yield threads, family and the speeds relative to onnxruntime."""
    for threads in dict.fromkeys(str(row["threads"]) for row in rows):
        for family in dict.fromkeys(row["network"].split("-")[0] for row in rows):
            chosen = [row for row in rows if str(row["threads"]) == threads and row["network"].startswith(f"{family}-")]
            if ratios := [float(row["ratio"]) for row in chosen if row["ratio"]]:
                yield threads, family, ratios


if __name__ == "__main__":
    main()
