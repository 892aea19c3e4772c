"""Run networks of torchvision and timm in fastconv and in onnxruntime, each in a separate process, in turns.

    python benchmarks/zoo.py export FOLDER              # needs torch, torchvision, timm; random weights of a fixed seed
    python benchmarks/zoo.py race FOLDER [--threads 1 2] [--busy 2] [--only REGEX] [--csv figures/zoo.csv]

A turn is a quarter of a second of calls; the result is the median of all calls of four turns. The error is the relative L2
distance of the first outputs from those of the reference in float64. "first" is the time from the file to the first result,
kernels on disk; "memory" is what the process takes for it, at the peak; both without the imports. With `--busy`, so many other
processes compute all the time.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import contest
import numpy as np

TURNS, SECONDS, PAUSE = 4, 0.25, 0.02
RUNNERS = ("onnxruntime", "fastconv")
FAMILIES = {
    "vgg": "vgg11 vgg13 vgg16_bn alexnet repvgg_a0 selecsls42b",
    "cnn": "resnet18 resnet34 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 googlenet inception_v3 squeezenet1_1 "
    "regnet_y_400mf regnet_x_1_6gf cspresnet50 darknet53 dla34 hrnet_w18_small res2net50_26w_4s seresnet50 convmixer_768_32 resnet26t "
    "skresnet18 resnest14d dpn68 gernet_s ese_vovnet19b_dw eca_nfnet_l0 xception41 cspdarknet53 resnet18d resnetblur18",
    "mobile": "mobilenet_v2 mobilenet_v3_large mobilenet_v3_small mnasnet1_0 shufflenet_v2_x1_0 efficientnet_b0 efficientnet_v2_s "
    "ghostnet_100 tinynet_a mixnet_s mobilevit_s edgenext_small rexnet_100 lcnet_050 fbnetc_100 semnasnet_075 hardcorenas_a "
    "mobileone_s0 mobilenetv4_conv_small ghostnetv2_100",
    "transformer": "convnext_tiny vit_b_16 swin_t maxvit_t vit_tiny_patch16_224 deit_small_patch16_224 mixer_s32_224 poolformer_s12 "
    "efficientformer_l1 levit_128s pit_ti_224 xcit_nano_12_p16_224 pvt_v2_b0 twins_pcpvt_small visformer_tiny convit_tiny "
    "crossvit_tiny_240 efficientvit_b0 tiny_vit_5m_224 gmlp_s16_224 cait_xxs24_224 coat_lite_tiny",
    "unet": "unet unet64",
    "superres": "edsr dncnn vdsr espcn",
}
SIDES = {"inception_v3": 299, "unet": 256, "unet64": 256, "edsr": 128, "dncnn": 256, "vdsr": 256, "espcn": 256, "crossvit_tiny_240": 240}
"""Height and width of the input, where it is not 224."""
VARIANTS = (
    *(("resnet18", {"opset": opset}) for opset in (11, 13, 15, 18)),
    ("mobilenet_v3_small", {"opset": 11}),
    *((name, {"dynamic": True}) for name in ("resnet18", "mobilenet_v2", "vit_tiny_patch16_224", "edsr", "unet")),
    *((name, {"dynamo": True, "opset": 18}) for name in ("resnet18", "mobilenet_v2", "densenet121", "vit_tiny_patch16_224", "unet")),
    *((name, {"dynamo": True, "opset": 21}) for name in ("resnet18", "convnext_tiny", "edsr")),
    *((name, {"half": True}) for name in ("resnet18", "resnet50", "vgg11", "edsr", "unet", "mobilenet_v2", "convnext_tiny")),
)
"""Networks exported in other ways: another opset, either exporter of PyTorch, any batch, float16."""
RESTORING = ("unet", "unet64", "edsr", "dncnn", "vdsr", "espcn")


def made(name: str) -> Any:
    """Return a network of torchvision, else of timm, with random weights."""
    import torch

    try:
        import torchvision
    except RuntimeError:  # some of its wheels are for CUDA: without it, these are not defined
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    import timm

    torch.manual_seed(0)
    if name in RESTORING:
        return restoring(name)
    if not hasattr(torchvision.models, name):
        return timm.create_model(name, pretrained=False, exportable=True)
    settings = {"googlenet": {"aux_logits": False, "init_weights": True}, "inception_v3": {"init_weights": True}}.get(name, {})
    module = getattr(torchvision.models, name)(weights=None, **settings)
    if name == "inception_v3":
        module.aux_logits, module.AuxLogits = False, None
    return module


def restoring(name: str) -> Any:
    """Return a U-Net of four levels, EDSR of eight blocks with twice the pixels, DnCNN of 17 layers, VDSR of 20, or ESPCN."""
    from torch import cat
    from torch.nn import BatchNorm2d, Conv2d, ConvTranspose2d, MaxPool2d, Module, ModuleList, PixelShuffle, ReLU, Sequential

    def double(before: int, after: int) -> Any:
        return Sequential(Conv2d(before, after, 3, padding=1), ReLU(), Conv2d(after, after, 3, padding=1), ReLU())

    class UNet(Module):
        def __init__(self, first: int) -> None:
            super().__init__()
            counts = [first << k for k in range(4)]
            self.down = ModuleList([double(before, after) for before, after in zip([3, *counts], counts, strict=False)])
            self.up = ModuleList([ConvTranspose2d(2 * c, c, 2, 2) for c in counts[2::-1]])
            self.joined = ModuleList([double(2 * c, c) for c in counts[2::-1]])
            self.pool, self.last = MaxPool2d(2), Conv2d(first, 3, 1)

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
    if name.startswith("unet"):
        return UNet(int(name[4:] or 32))
    if name == "espcn":
        return Sequential(Conv2d(1, 64, 5, padding=2), ReLU(), conv(64, 64), ReLU(), conv(64, 32), ReLU(), conv(32, 4), PixelShuffle(2))
    if name == "vdsr":
        return Residual(Sequential(conv(1, 64), ReLU(), *[p for _ in range(18) for p in (conv(64, 64), ReLU())], conv(64, 1)), 1.0)
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
    folder.mkdir(parents=True, exist_ok=True)
    families = {name: family for family, names in FAMILIES.items() for name in names.split()}
    for name, how in (*((name, {}) for name in families), *VARIANTS):
        words = [f"{key}{value if value is not True else ''}" for key, value in how.items()]
        path = folder / f"{'-'.join([families[name], name, *words])}.onnx"
        if not path.exists():
            try:
                exported(name, path, **how)
            except Exception as error:  # some networks are not for some exporters, which say so in many ways
                print(path.stem, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, flush=True)
            else:
                print(path, flush=True)


def exported(name: str, path: Path, opset: int = 17, dynamic: bool = False, dynamo: bool = False, half: bool = False) -> None:
    """Write one network."""
    import torch

    side = SIDES.get(name, 224)
    x = torch.randn(1, 1 if name in ("dncnn", "vdsr", "espcn") else 3, side, side, generator=torch.Generator().manual_seed(1))
    module = settled(made(name), x)
    if half:
        module, x = module.half(), x.half()
    how: dict[str, Any] = {"dynamo": True} if dynamo else {"dynamo": False, "input_names": ["x"]}
    if dynamic:
        how["dynamic_axes"] = {"x": {0: "batch"}}
    torch.onnx.export(module, (x,), str(path), opset_version=opset, **how)


def work(runner: str, path: str, threads: int) -> None:
    """Answer each number of seconds on the standard input with the times of the calls in it."""
    import onnx
    import onnxruntime

    import fastconv
    from fastconv.native import machine
    from fastconv.network import Network  # noqa: F401  # imports are not timed

    machine()
    element = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type
    shape = [length.dim_value or 1 for length in element.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(onnx.helper.tensor_dtype_to_np_dtype(element.elem_type))
    before, begun = memory("VmRSS"), time.perf_counter()
    if runner == "onnxruntime":
        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds, call = {session.get_inputs()[0].name: x}, lambda feeds: session.run(None, feeds)[0]
    else:
        net = fastconv.load_onnx(path)
        prepared, output = net.prepare(threads=threads, policy="fp64" if runner == "float64" else "fp32"), net.outputs[0].name
        feeds, call = {net.inputs[0].name: x}, lambda feeds: prepared(feeds)[output]
    y = call(feeds)
    taken = {"first": time.perf_counter() - begun, "memory": memory("VmHWM") - before}
    print(json.dumps(taken | {"y": np.asarray(y, np.float64).reshape(-1).tolist()}), flush=True)
    call(feeds)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while len(times) < 3 or time.perf_counter() < end:
            begun = time.perf_counter()
            call(feeds)
            times.append(time.perf_counter() - begun)
        print(json.dumps(times), flush=True)


@contextmanager
def occupied(count: int) -> Iterator[None]:
    """Let other processes compute, until the end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def memory(what: str) -> float:
    """Return the memory of this process, now or at its peak, in MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


def started(runner: str, path: Path, threads: int) -> subprocess.Popen[str]:
    """Start a process that runs a network."""
    command = [sys.executable, __file__, "work", str(path), "--threads", str(threads), "--runner", runner]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@cache
def reference(path: Path) -> Any:
    """Return the first output in float64."""
    with started("float64", path, 2) as worker:
        return np.array(json.loads(worker.communicate("")[0])["y"])


def raced(path: Path, threads: int) -> dict[str, Any]:
    """Return one row of the table."""
    with started("fastconv", path, threads) as first:  # compiles, and keeps its choices
        first.communicate("")
    workers = {runner: started(runner, path, threads) for runner in RUNNERS}
    try:
        answers = {}
        for runner, worker in workers.items():
            answers[runner] = json.loads(worker.stdout.readline())  # type: ignore[union-attr]
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
    exact = reference(path)
    errors = {runner: np.linalg.norm(np.array(answers[runner]["y"]) - exact) / (np.linalg.norm(exact) or 1.0) for runner in RUNNERS}
    medians = {runner: float(np.median(times[runner])) for runner in RUNNERS}
    row: dict[str, Any] = {"network": path.stem, "threads": threads}
    row |= {f"{runner}_ms": round(1e3 * medians[runner], 3) for runner in RUNNERS}
    row |= {"ratio": round(medians["onnxruntime"] / medians["fastconv"], 3)}
    row |= {f"{runner}_error": float(f"{errors[runner]:.1e}") for runner in RUNNERS}
    row |= {f"{runner}_first": round(answers[runner]["first"], 3) for runner in RUNNERS}
    return row | {f"{runner}_memory": round(answers[runner]["memory"]) for runner in RUNNERS}


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
    parser.add_argument("--busy", type=int, default=0, help="other processes that compute meanwhile")
    parser.add_argument("--only", default="", help="regular expression that names have to match")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--runner", choices=(*RUNNERS, "float64"), default="fastconv", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.what == "export":
        return export(given.path)
    if given.what == "work":
        return work(given.runner, str(given.path), given.threads[0])
    rows = []
    with occupied(given.busy):
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
