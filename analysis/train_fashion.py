"""Train the default network on Fashion-MNIST and write what the package ships.

    pip install torch==2.13.0 onnx        # development only; the package never imports torch
    apt-get install dataset-fashion-mnist # 70,000 images, MIT licence
    python analysis/train_fashion.py

Writes `fashion.onnx` (BatchNorm folded in float64, weights rounded once) and `fashion-test.npz` (the first
100 test images of each class) into `--out`, and `fashion-training.json` with the accuracy on all 10,000
test images. The network is VGG-like: dense 3x3 convolutions of stride 1, nothing else that multiplies
but one linear layer. The last epoch's weights are what is shipped: the test images choose nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

CHANNELS = ((32, 32), (64, 64), (128, 128, 128))
"""Channels of the convolutions, one tuple for each resolution (28, 14, 7 pixels)."""


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file (the format of MNIST) of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def build() -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 1
    for stage in CHANNELS:
        for channels in stage:
            layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            width = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(width * 9, 10))


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and shift each batch by up to two pixels."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(images, (dy, dx), (2, 3))


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return right / len(images)


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.25)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    begun = time.monotonic()
    for epoch in range(epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for step, index in enumerate(order.split(batch)[: len(images) // batch], 1):
            optimizer.zero_grad()
            loss = loss_of(model(augment(images[index], generator)), labels[index])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            if step % 50 == 0:
                print(f"epoch {epoch + 1}/{epochs} step {step}: loss {total / step:.4f}, {time.monotonic() - begun:.0f} s", flush=True)


def folded(model: nn.Sequential) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fold each BatchNorm into the convolution before it: float64 throughout, one rounding at the end."""
    pairs = []
    for conv, norm in zip(model, list(model)[1:], strict=False):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            weight = conv.weight.double() * scale[:, None, None, None]
            bias = norm.bias.double() - norm.running_mean.double() * scale
            pairs.append((weight.detach().float().numpy(), bias.detach().float().numpy()))
    return pairs


def export(model: nn.Sequential) -> onnx.ModelProto:
    """Write the trained network as ONNX, opset 17, with a free batch size."""
    nodes, weights, value, k = [], [], "image", 0
    pairs = iter(folded(model))
    for stage, channels in enumerate(CHANNELS, 1):
        for layer in range(1, len(channels) + 1):
            k += 1
            name = f"conv{stage}_{layer}"
            weight, bias = next(pairs)
            weights += [numpy_helper.from_array(weight, f"{name}.weight"), numpy_helper.from_array(bias, f"{name}.bias")]
            nodes.append(
                helper.make_node("Conv", [value, f"{name}.weight", f"{name}.bias"], [name], name=name, kernel_shape=[3, 3], pads=[1] * 4)
            )
            nodes.append(helper.make_node("Relu", [name], [f"relu{stage}_{layer}"], name=f"relu{stage}_{layer}"))
            value = f"relu{stage}_{layer}"
        nodes.append(helper.make_node("MaxPool", [value], [f"pool{stage}"], name=f"pool{stage}", kernel_shape=[2, 2], strides=[2, 2]))
        value = f"pool{stage}"
    linear = model[-1]
    weights += [
        numpy_helper.from_array(linear.weight.detach().numpy(), "fc.weight"),
        numpy_helper.from_array(linear.bias.detach().numpy(), "fc.bias"),
    ]
    nodes += [
        helper.make_node("Flatten", [value], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "fashion",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="fastconv analysis/train_fashion.py"
    )
    onnx.checker.check_model(made)
    return made


def replace(path: Path, data: bytes) -> None:
    """Write to a temporary name beside `path`, then rename: a reader never sees half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def class_balanced(images: np.ndarray, labels: np.ndarray, each: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `each` images of every class, in the order of the data set."""
    index = np.sort(np.concatenate([np.flatnonzero(labels == c)[:each] for c in range(10)]))
    return images[index], labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "fastconv" / "data")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=2026)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    files = {
        k: read_idx(args.data / f"{k}-ubyte.gz") for k in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    }
    as_images = lambda a: torch.from_numpy(a.astype(np.float32) / np.float32(255))[:, None]
    as_labels = lambda a: torch.from_numpy(a.astype(np.int64))
    model = build().to(memory_format=torch.channels_last)
    train(model, as_images(files["train-images-idx3"]), as_labels(files["train-labels-idx1"]), args.epochs, args.batch, args.seed)
    top1 = accuracy(model, as_images(files["t10k-images-idx3"]), as_labels(files["t10k-labels-idx1"]))
    made = export(model)
    print(f"top-1 on the 10,000 test images: {top1:.2%}; {len(made.SerializeToString()) / 1e6:.2f} MB")

    args.out.mkdir(parents=True, exist_ok=True)
    replace(args.out / "fashion.onnx", made.SerializeToString())
    images, labels = class_balanced(files["t10k-images-idx3"], files["t10k-labels-idx1"])
    with tempfile.TemporaryFile() as file:
        np.savez_compressed(file, images=images, labels=labels)
        file.seek(0)
        replace(args.out / "fashion-test.npz", file.read())
    record = {
        "top1_on_10000": top1,
        "epochs": args.epochs,
        "batch": args.batch,
        "seed": args.seed,
        "torch": torch.__version__,
        "channels": CHANNELS,
    }
    replace(args.out / "fashion-training.json", (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
