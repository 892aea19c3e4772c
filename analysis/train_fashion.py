"""Train the Fashion-MNIST networks that the package ships, and write their files.

    pip install torch==2.13.0 onnx        # development only; the package never imports torch
    apt-get install dataset-fashion-mnist # 70,000 images, MIT licence
    python analysis/train_fashion.py
    python analysis/train_fashion.py --network fashion-resnet20 --threads 1

Writes `NETWORK.onnx` (BatchNorm folded in float64, weights rounded once) and `fashion-test.npz` (the first
100 test images of each class) into `--out`, and `NETWORK-training.json` with the accuracy on all 10,000
test images. The weights of the last epoch are shipped, so the test images select nothing. With
`--checkpoint` each epoch is stored, and an interrupted run resumes from it.

`fashion` is VGG-like: dense 3x3 convolutions of stride 1 and one linear layer.
`fashion-resnet20` is the network of He et al. (2016, "Deep residual learning for image recognition", section
4.2) for small pictures: three stages of three blocks of two 3x3 convolutions, 1x1 convolutions where the shape
changes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fastconv.files import replacing, write_whole


class Writer:
    """Builder of an ONNX graph; folds BatchNorm into the preceding convolution in float64, rounded once."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: list[str], name: str, output: str | None = None, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def tensor(self, value: np.ndarray, name: str) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def conv(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: str, name: str) -> str:
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = conv.weight.double() * scale[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * scale
        inputs = [x, *(self.tensor(v.detach().float().numpy(), f"{name}.{k}") for k, v in (("weight", weight), ("bias", bias)))]
        strides = {} if conv.stride == (1, 1) else {"strides": list(conv.stride)}
        pads = {} if conv.padding == (0, 0) else {"pads": list(conv.padding) * 2}
        return self.node("Conv", inputs, name, kernel_shape=list(conv.kernel_size), **strides, **pads)

    def linear(self, linear: nn.Linear, x: str) -> None:
        flat = self.node("Flatten", [x], "flatten", "flat")
        names = [self.tensor(v.detach().numpy(), f"fc.{k}") for k, v in (("weight", linear.weight), ("bias", linear.bias))]
        self.node("Gemm", [flat, *names], "fc", "logits", transB=1)

    def model(self, name: str) -> onnx.ModelProto:
        """Return the model, opset 17, with a free batch size."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
        graph = helper.make_graph(self.nodes, name, [image], [logits], self.weights)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="fastconv analysis/train_fashion.py"
        )
        onnx.checker.check_model(made)
        return made


class Vgg(nn.Sequential):
    """Stages of 3x3 convolutions, each followed by max pooling."""

    channels = ((32, 32), (64, 64), (128, 128, 128))  # one tuple for each resolution: 28, 14, 7 pixels

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 1
        for stage in self.channels:
            for channels in stage:
                layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
                width = channels
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(width * 9, 10))

    def write(self, to: Writer) -> None:
        value, layers = "image", iter(self)
        for stage, channels in enumerate(self.channels, 1):
            for layer in range(1, len(channels) + 1):
                conv, norm, _ = next(layers), next(layers), next(layers)
                value = to.conv(conv, norm, value, f"conv{stage}_{layer}")
                value = to.node("Relu", [value], f"relu{stage}_{layer}")
            next(layers)
            value = to.node("MaxPool", [value], f"pool{stage}", kernel_shape=[2, 2], strides=[2, 2])
        to.linear(self[-1], value)


class Block(nn.Module):
    """Two 3x3 convolutions with a skip connection, a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skip = None if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.skip_norm = None if self.skip is None else nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = x if self.skip is None else self.skip_norm(self.skip(x))
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + around)

    def write(self, to: Writer, x: str, name: str) -> str:
        y = to.node("Relu", [to.conv(self.conv1, self.norm1, x, f"conv{name}_1")], f"relu{name}_1")
        y = to.conv(self.conv2, self.norm2, y, f"conv{name}_2")
        around = x if self.skip is None else to.conv(self.skip, self.skip_norm, x, f"skip{name}")
        return to.node("Relu", [to.node("Add", [y, around], f"add{name}")], f"relu{name}_2")


class ResNet20(nn.Module):
    """He et al.'s residual network for small pictures, with n = 3 blocks per stage."""

    channels = (16, 32, 64)  # 28, 14, 7 pixels
    blocks = 3

    def __init__(self) -> None:
        super().__init__()
        width = self.channels[0]
        self.conv, self.norm = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.body = nn.ModuleList()
        for stage, channels in enumerate(self.channels):
            for block in range(self.blocks):
                self.body.append(Block(width, channels, 2 if stage and not block else 1))
                width = channels
        self.linear = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        for block in self.body:
            x = block(x)
        return self.linear(x.mean((2, 3)))

    def write(self, to: Writer) -> None:
        x = to.node("Relu", [to.conv(self.conv, self.norm, "image", "conv0")], "relu0")
        for k, block in enumerate(self.body):
            x = block.write(to, x, f"{k // self.blocks + 1}_{k % self.blocks + 1}")
        to.linear(self.linear, to.node("GlobalAveragePool", [x], "pool"))


def rolled(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and shift each batch by up to two pixels."""
    images = mirrored(images, generator)
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(images, (dy, dx), (2, 3))


def cropped(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and shift each by up to two pixels, with zeros beyond the border."""
    images = mirrored(images, generator)
    count, _, height, width = images.shape
    padded = nn.functional.pad(images[:, 0], (2, 2, 2, 2))
    shift = torch.randint(0, 5, (2, count, 1), generator=generator)
    rows, columns = torch.arange(height) + shift[0], torch.arange(width) + shift[1]
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def mirrored(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


@dataclass(frozen=True)
class Recipe:
    """Training of a network: one-cycle schedule over AdamW or Nesterov's SGD, smoothed labels."""

    build: Callable[[], Any]
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    max_lr: float
    epochs: int


RECIPES = {
    "fashion": Recipe(Vgg, rolled, lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.02), 4e-3, 8),
    "fashion-resnet20": Recipe(
        ResNet20, cropped, lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=5e-4, nesterov=True), 0.2, 14
    ),
}


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file (the format of MNIST) of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return right / len(images)


def train(
    model: nn.Module, recipe: Recipe, images: torch.Tensor, labels: torch.Tensor, batch: int, seed: int, checkpoint: Path | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    each = len(images) // batch
    optimizer = recipe.optimizer(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.max_lr, total_steps=recipe.epochs * each, pct_start=0.25)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint is not None and checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(stored[name])
        generator.set_state(stored["generator"])
        first = stored["epochs"]
    begun = time.monotonic()
    for epoch in range(first, recipe.epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for step, index in enumerate(order.split(batch)[:each], 1):
            optimizer.zero_grad()
            pictures = recipe.augment(images[index], generator).contiguous(memory_format=torch.channels_last)
            loss = loss_of(model(pictures), labels[index])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            if step % 50 == 0:
                print(
                    f"epoch {epoch + 1}/{recipe.epochs} step {step}: loss {total / step:.4f}, {time.monotonic() - begun:.0f} s", flush=True
                )
        if checkpoint is not None:
            state = {name: part.state_dict() for name, part in parts.items()}
            with replacing(checkpoint) as new:
                torch.save({**state, "generator": generator.get_state(), "epochs": epoch + 1}, new)


def class_balanced(images: np.ndarray, labels: np.ndarray, each: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `each` images of every class, in the order of the data set."""
    index = np.sort(np.concatenate([np.flatnonzero(labels == c)[:each] for c in range(10)]))
    return images[index], labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=RECIPES, default="fashion")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "fastconv" / "data")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--threads", type=int, help="of torch; the sums in its gradients depend on them")
    parser.add_argument("--checkpoint", type=Path, help="written after each epoch; the run resumes from it if it exists")
    args = parser.parse_args()

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    recipe = RECIPES[args.network]
    files = {
        k: read_idx(args.data / f"{k}-ubyte.gz") for k in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    }
    as_images = lambda a: torch.from_numpy(a.astype(np.float32) / np.float32(255))[:, None]
    as_labels = lambda a: torch.from_numpy(a.astype(np.int64))
    model = recipe.build().to(memory_format=torch.channels_last)
    seen = as_images(files["train-images-idx3"]), as_labels(files["train-labels-idx1"])
    train(model, recipe, *seen, args.batch, args.seed, args.checkpoint)
    top1 = accuracy(model, as_images(files["t10k-images-idx3"]), as_labels(files["t10k-labels-idx1"]))
    writer = Writer()
    model.write(writer)
    made = writer.model(args.network)
    print(f"top-1 on the 10,000 test images: {top1:.2%}; {len(made.SerializeToString()) / 1e6:.2f} MB")

    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / f"{args.network}.onnx", made.SerializeToString())
    images, labels = class_balanced(files["t10k-images-idx3"], files["t10k-labels-idx1"])
    with tempfile.TemporaryFile() as file:
        np.savez_compressed(file, images=images, labels=labels)
        file.seek(0)
        write_whole(args.out / "fashion-test.npz", file.read())
    record = {
        "top1_on_10000": top1,
        "epochs": recipe.epochs,
        "batch": args.batch,
        "seed": args.seed,
        "torch": torch.__version__,
        "channels": model.channels,
    }
    write_whole(args.out / f"{args.network}-training.json", (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
