"""The empirical neural tangent kernel of a Network or of a torch module, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.theory.ntk.device import budget, placed
from tangency.theory.ntk.jax_kernel import JaxModel
from tangency.theory.ntk.result import EmpiricalNTK
from tangency.theory.ntk.tiles import Model, assemble

if TYPE_CHECKING:
    import torch

__all__ = ["empirical_ntk", "front_end"]

OUTPUTS = ("trace", "full", "diagonal", "sum")


def front_end(network: Any) -> Model:
    """The model behind a Network (JAX) or a torch.nn.Module (torch, no conversion).

    Raises
    ------
    InputError
        For anything else.
    """
    if isinstance(network, Network):
        return JaxModel(network)
    if any(cls.__module__.split(".")[0] == "torch" for cls in type(network).__mro__):
        from tangency.theory.ntk.torch_kernel import TorchModel

        return TorchModel(network)
    raise InputError(
        f"a {type(network).__name__} has no empirical kernel: give a Network or a torch.nn.Module"
    )


def empirical_ntk(
    network: Network | torch.nn.Module,
    x1: Any,
    x2: Any | None = None,
    *,
    outputs: str = "trace",
    batch_size: int | None = None,
    memory: int | None = None,
    sample: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    device: str | None = None,
) -> EmpiricalNTK:
    """Empirical NTK of a model's weights between two sets of inputs.

    ``Theta[i, j, a, b] = sum_p df_a(x1_i)/dw_p df_b(x2_j)/dw_p`` over all trainable weights, by the
    layer-wise form ``(A A^T) o (B B^T)``: the inputs A and the cotangents B of a layer take the
    place of its gradients wherever that is cheaper.

    Parameters
    ----------
    network : Network or torch.nn.Module
        One input and one output; its dtype is that of the computation (``astype("float64")``
        where the kernel is near degeneracy). A torch module stays in torch, on its device, and
        its parameters with ``requires_grad`` are the trainable weights; it must be in evaluation
        mode where that matters (batch norm, dropout).
    x1 : (n1, *input_shape) array, or tensor for a module
    x2 : (n2, *input_shape) array or tensor, optional
        By default x1: the kernel is then symmetric and one triangle of tiles is computed.
    outputs : {"trace", "full", "diagonal", "sum"}
        ``trace``: mean over the K outputs of the blocks' diagonals, (n1, n2), as
        neural-tangents' ``trace_axes=(-1,)``; ``full``: (n1, n2, K, K); ``diagonal``:
        the kernel of each output on its own, (n1, n2, K); ``sum``: that of
        ``sum_a f_a / sqrt(K)``, (n1, n2), one backward pass instead of K, which stands for the
        full kernel as ``sum x identity``; its error against a sampled exact block is reported.
    batch_size : int, optional
        Samples in a tile; by default what fits ``memory``.
    memory : int, optional
        Bytes that what the layers of two tiles hold may take; the passes through the model take
        about a quarter of it besides. By default 256 MiB; where a GPU contracts what the CPU
        holds, a 32nd of what is free on it, up to 4 GiB.
    sample : int
        Samples, drawn from x1 and x2, of the exact block for ``sum``.
    seed : int
        Of that draw.
    progress : callable, optional
        Called with (tiles done, tiles in all).
    device : {"cpu", "cuda"}, optional
        Where the layers are contracted. The passes through the model run where the model does:
        JAX's default device, or the module's. With "cuda" what the layers of a model on the CPU
        hold goes to the GPU (CuPy) a tile at a time. By default "cuda" where CuPy finds a GPU; of
        a torch module, its own device. Both give the same numbers to 1e-6 of the largest entry in
        float32, to 1e-12 in float64.

    Returns
    -------
    EmpiricalNTK
        Frozen result with ``ntk``, a NumPy array of the network's dtype, and for ``sum`` with
        ``error``.

    Raises
    ------
    InputError
        For inputs that do not fit, an empty set, a network without trainable weights, or with one
        that is computed from parameters in a way that is not followed, a torch module whose
        outputs depend on the batch (batch norm in training mode), by name.
    MissingPackageError
        For ``device="cuda"`` without CuPy, a driver or a GPU; the message says what to install.

    Notes
    -----
    Derivatives are by the model's own parameters: where it takes ``a / sqrt(m)`` of its parameter
    a, the importer keeps that factor (``Param.gain``); where a JAX model uses a parameter more
    than once (in a loop, and transposed), which entries a weight holds (``Param.entries``), and the
    kernel is summed over all uses. A weight that is computed from parameters in another way is
    refused by name. What an ONNX graph computes from its initializers is fixed.

    References
    ----------
    Jacot, Gabriel, Hongler, "Neural Tangent Kernel", arXiv 1806.07572; Novak, Sohl-Dickstein,
    Schoenholz, "Fast finite width neural tangent kernel", arXiv 2206.08720 (structured
    derivatives); Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical
    neural tangent kernel", arXiv 2206.12543 (sum of logits).
    """
    start = time.perf_counter()
    if outputs not in OUTPUTS:
        raise InputError(f"outputs={outputs!r}: one of {', '.join(OUTPUTS)}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size}: at least one sample")
    if memory is not None and memory < 1:
        raise InputError(f"memory={memory}: a positive number of bytes")
    model = placed(front_end(network), device)
    memory = budget(model) if memory is None else memory
    x1 = model.inputs("x1", x1)
    x2 = None if x2 is None else model.inputs("x2", x2)
    k = model.size
    eye = np.eye(k, dtype=model.dtype)
    ones = np.full((1, k), k**-0.5, model.dtype)
    kernel = assemble(
        model,
        x1,
        x2,
        ones if outputs == "sum" else eye,
        outputs="trace" if outputs == "sum" else outputs,
        tile=batch_size,
        memory=memory,
        progress=progress,
    )
    if outputs == "trace":
        kernel = kernel / np.asarray(k, kernel.dtype)
    error, block = None, None
    if outputs == "sum":
        rows, columns = _draw(len(x1), len(x1 if x2 is None else x2), sample, seed, x2 is None)
        right = None if x2 is None else x2[columns]
        exact = assemble(model, x1[rows], right, eye, outputs="full", tile=None, memory=memory)
        error = _error(kernel[np.ix_(rows, columns)], exact)
        block = len(rows)
    return EmpiricalNTK(
        ntk=kernel,
        outputs=outputs,
        symmetric=x2 is None,
        seconds=time.perf_counter() - start,
        error=error,
        error_samples=block,
    )


def _draw(
    n1: int, n2: int, count: int, seed: int, symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the exact block, without repetition."""
    if count < 1:
        raise InputError(f"sample={count}: at least one sample")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(n1)[:count])
    return rows, rows if symmetric else np.sort(rng.permutation(n2)[:count])


def _error(estimate: np.ndarray, exact: np.ndarray) -> float:
    """Relative Frobenius distance of ``estimate x identity`` from the full kernel."""
    exact = exact.astype(np.float64)
    stand_in = estimate.astype(np.float64)[:, :, None, None] * np.eye(exact.shape[-1])
    norm = float(np.linalg.norm(exact))
    return float(np.linalg.norm(exact - stand_in)) / norm if norm else 0.0
