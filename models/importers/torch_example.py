"""What a user gives to ``from_torch``: the example, the module for the time of reading."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.importers.torch_parametrized import fix_parametrized

__all__ = [
    "common_dtype",
    "evaluating",
    "first_line",
    "first_sample",
    "kind_of",
    "quiet",
    "run_once",
]


def kind_of(x: Any) -> str:
    """What a thing is, for messages."""
    return f"the class {x.__name__}" if isinstance(x, type) else f"a {type(x).__name__}"


def first_sample(example: Any, batch_axis: int | None) -> list[Any]:
    """The example's first sample, as tensors with a batch axis of one (if there is one)."""
    import torch

    items = list(example) if isinstance(example, tuple | list) else [example]
    if not items:
        raise InputError("the example is empty: give a tensor, or a tuple of them")
    tensors = []
    for i, x in enumerate(items):
        what = f"example {i}" if len(items) > 1 else "the example"
        if not isinstance(x, torch.Tensor | np.ndarray):
            raise InputError(f"{what} is {kind_of(x)}: give a tensor or a NumPy array")
        kind = str(x.dtype).removeprefix("torch.")
        if kind not in ("float32", "float64"):
            raise InputError(f"{what} is {kind}: give float32 or float64")
        t = torch.zeros(tuple(x.shape), dtype=getattr(torch, kind))  # the values do not matter
        if not t.numel():
            raise InputError(f"{what} has shape {tuple(x.shape)}, with no entries")
        if batch_axis is not None:
            if not -t.ndim <= batch_axis < t.ndim:
                raise InputError(f"{what} has shape {tuple(x.shape)}: no batch axis {batch_axis}")
            t = t.narrow(batch_axis, 0, 1).clone()
        generator = torch.Generator().manual_seed(0)
        tensors.append(t.uniform_(0.1, 0.9, generator=generator))
    sizes = {x.shape[batch_axis] for x in items} if batch_axis is not None else set()
    if len(sizes) > 1:
        raise InputError(f"the inputs of the example have batches of {sorted(sizes)} samples")
    return tensors


def common_dtype(module: Any, inputs: list[Any]) -> str:
    """The dtype that inputs, parameters and buffers share; InputError when they differ."""
    import torch

    lazy = [n for n, p in module.named_parameters() if torch.nn.parameter.is_lazy(p)]
    if lazy:
        raise InputError(f"parameter {lazy[0]!r} is not initialised: call the module once")
    found = {f"input {i}": x.dtype for i, x in enumerate(inputs)}
    found |= {n: p.dtype for n, p in module.named_parameters()}
    found |= {n: b.dtype for n, b in module.named_buffers() if b.is_floating_point()}
    dtype = inputs[0].dtype
    for name, other in found.items():
        if other != dtype:
            kinds = [str(d).removeprefix("torch.") for d in (dtype, other)]
            raise InputError(
                f"the example is {kinds[0]} and {name!r} of the model {kinds[1]}: give both the "
                "same, float32 or float64 (example.to(dtype) or module.to(dtype))"
            )
    return str(dtype).removeprefix("torch.")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from logging its attempts, and from fusing layers into ops of its own."""
    import torch

    disabled, fast = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
    logging.disable(logging.CRITICAL)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def evaluating(module: Any) -> Iterator[Any]:
    """A copy of the module in evaluation mode; where it cannot be copied, itself for the time.

    In the copy, weights that are computed from others are fixed at their values.
    """
    try:
        twin = copy.deepcopy(module)
    except Exception:  # weights computed by hooks cannot be copied
        twin = module
    modes = [(m, m.training) for m in twin.modules()]
    twin.eval()
    if twin is not module:
        fix_parametrized(twin)
    try:
        yield twin.to("cpu") if twin is not module else twin
    finally:
        for m, mode in modes:
            m.training = mode


def run_once(module: Any, inputs: list[Any]) -> None:
    """Run the module on the sample; InputError when it does not take it."""
    import torch

    try:
        with torch.no_grad():
            module(*(x.clone() for x in inputs))
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise InputError(
            f"the module does not take one sample of the example, shape {shapes}: "
            f"{first_line(error)}"
        ) from None


def first_line(error: Exception) -> str:
    """Kind and first line of an error, for a message of one line."""
    lines = [s.strip() for s in str(error).splitlines() if s.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
