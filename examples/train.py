"""Train the three example networks on scikit-learn's digits and write all their forms.

    python examples/train.py

needs torch, onnx and scikit-learn, takes about a minute, and is seeded: the same versions give
the same files. For each network it writes ``<name>.onnx``, ``<name>.pt`` (torch state) and
``<name>.npz`` (arrays for the JAX function of ``digits.py``), and for all ``digits_test.npz``, 200
samples that no network saw in training.

The ReLU networks are trained on worst-case logits over a small box (interval bounds, after Gowal
et al., arXiv 1810.12715), the MaxMin network with a margin and a penalty on the product of the
spectral norms, so that there is something to certify about each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from digits import NAMES, torch_model
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).resolve().parent
EPS = 0.03
TEST = 200


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training and test samples, shuffled with a fixed seed."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = torch.tensor(digits.data[order] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[order])
    return x[TEST:], y[TEST:], x[:TEST], y[:TEST]


def worst_logits(
    model: nn.Sequential, x: torch.Tensor, y: torch.Tensor, eps: float
) -> torch.Tensor:
    """Logits with the least value for the label and the greatest for the others, by intervals."""
    center, radius = x, torch.full_like(x, eps)
    for layer in model:
        if isinstance(layer, nn.Linear):
            center, radius = layer(center), radius @ layer.weight.abs().T
        elif isinstance(layer, nn.Conv2d):
            radius = nn.functional.conv2d(
                radius, layer.weight.abs(), stride=layer.stride, padding=layer.padding
            )
            center = layer(center)
        elif isinstance(layer, nn.ReLU):
            low, high = (center - radius).relu(), (center + radius).relu()
            center, radius = (high + low) / 2, (high - low) / 2
        else:
            center, radius = layer(center), layer(radius)
    label = nn.functional.one_hot(y, 10).bool()
    return torch.where(label, center - radius, center + radius)


def norm_product(model: nn.Sequential) -> torch.Tensor:
    """Product of the spectral norms of the linear layers."""
    norms = [torch.linalg.matrix_norm(m.weight, 2) for m in model if isinstance(m, nn.Linear)]
    return torch.stack(norms).prod()


def train(name: str) -> nn.Sequential:
    """Train one network; prints its test accuracy."""
    torch.manual_seed(0)
    model: nn.Sequential = torch_model(name)
    x, y, x_test, y_test = data()
    epochs = 150
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        ramp = min(1.0, epoch / 75)
        for batch in torch.randperm(len(x), generator=generator).split(64):
            logits = model(x[batch])
            if name == "digits_maxmin":
                margin = logits - ramp * nn.functional.one_hot(y[batch], 10)
                loss = nn.functional.cross_entropy(margin, y[batch])
                loss = loss + 0.0002 * ramp * norm_product(model)
            else:
                worst = worst_logits(model, x[batch], y[batch], EPS * ramp)
                loss = nn.functional.cross_entropy(logits, y[batch])
                loss = (1 - ramp / 2) * loss + ramp / 2 * nn.functional.cross_entropy(
                    worst, y[batch]
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    with torch.no_grad():
        accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
    print(f"{name}: test accuracy {accuracy:.3f}")
    return model


def to_onnx(model: nn.Sequential) -> onnx.ModelProto:
    """The network as ONNX, written node by node with standard ops."""
    nodes, weights, value = [], [], "x"

    def initializer(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array, name))
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    for key, layer in model.named_children():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            names = [
                initializer(f"{key}.{n}", p.detach().numpy()) for n, p in layer.named_parameters()
            ]
        if isinstance(layer, nn.Linear):
            value = node("Gemm", [value, *names], f"linear{key}", transB=1)
        elif isinstance(layer, nn.Conv2d):
            pads, strides = list(layer.padding) * 2, list(layer.stride)
            value = node("Conv", [value, *names], f"conv{key}", pads=pads, strides=strides)
        elif isinstance(layer, nn.ReLU):
            value = node("Relu", [value], f"relu{key}")
        elif isinstance(layer, nn.Unflatten):
            shape = initializer(f"shape{key}", np.array([-1, 1, 8, 8], np.int64))
            value = node("Reshape", [value, shape], f"image{key}")
        elif isinstance(layer, nn.Flatten):
            value = node("Flatten", [value], f"flatten{key}")
        else:  # MaxMin: the greater and the smaller of adjacent pairs
            pairs = initializer(f"pairs{key}", np.array([0, -1, 2], np.int64))
            flat = initializer(f"flat{key}", np.array([0, -1], np.int64))
            axis = initializer(f"axis{key}", np.array([2], np.int64))
            value = node("Reshape", [value, pairs], f"maxmin{key}.pairs")
            high = node("ReduceMax", [value, axis], f"maxmin{key}.max", keepdims=1)
            low = node("ReduceMin", [value, axis], f"maxmin{key}.min", keepdims=1)
            value = node("Concat", [high, low], f"maxmin{key}.both", axis=2)
            value = node("Reshape", [value, flat], f"maxmin{key}")
    nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(proto)
    return proto


def main() -> None:
    """Train and write everything beside this script."""
    torch.set_num_threads(1)
    for name in NAMES:
        model = train(name)
        state = {key: tensor.detach().contiguous() for key, tensor in model.state_dict().items()}
        torch.save(state, HERE / f"{name}.pt")
        np.savez(HERE / f"{name}.npz", **{key: t.numpy() for key, t in state.items()})
        onnx.save(to_onnx(model), HERE / f"{name}.onnx")
    _, _, x_test, y_test = data()
    np.savez_compressed(HERE / "digits_test.npz", x=x_test.numpy(), y=y_test.numpy())


if __name__ == "__main__":
    main()
