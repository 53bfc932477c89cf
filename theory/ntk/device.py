"""Where the products of the layers are taken: beside the model, by BLAS, or on a GPU by CuPy.

A model that runs on a GPU itself (a torch module there, JAX built for it) keeps its layers' inputs
and cotangents there and contracts them in its own library; so does a torch module on the CPU. What
JAX holds on the CPU goes to NumPy or CuPy, a tile at a time: NumPy looks at the same memory, and
what is carried to a GPU grows with the samples, while what it computes grows with their pairs.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from tangency.gpu.bands import free_memory
from tangency.gpu.empirical import DeviceAlgebra
from tangency.gpu.engines import Engine, HostEngine, available_devices, engine_for
from tangency.gpu.errors import DeviceError
from tangency.models.errors import InputError, MissingPackageError
from tangency.theory.ntk.contraction import contract, symmetric
from tangency.theory.ntk.jax_kernel import JaxModel
from tangency.theory.ntk.tiles import MEMORY, Model

__all__ = ["DeviceModel", "budget", "placed"]

#: Samples up to which JAX's one compiled call, passes and products together, beats BLAS on the CPU
#: (by a third at 300 of an MLP; at 1,500 it takes half as long again).
FEW = 512


class DeviceModel:
    """A model of the CPU whose layers are contracted where an engine is: see :class:`.tiles.Model`.

    Parameters
    ----------
    model : Model
    engine : Engine
        From :func:`tangency.gpu.engines.engine_for`.
    few : int
        Samples up to which the model contracts one tile with itself by its own means.
    """

    def __init__(self, model: Model, engine: Engine, *, few: int = 0) -> None:
        self.model, self.few = model, few
        self.dtype, self.home = model.dtype, model.home
        self.algebra = DeviceAlgebra(engine, model.dtype)
        self.inputs, self.numbers = model.inputs, model.numbers

    @property
    def size(self) -> int:
        """Outputs of the model, which a torch module tells with its first samples."""
        return self.model.size

    def scope(self) -> Any:
        """Nothing: arrays of NumPy and CuPy carry their precision with them."""
        return nullcontext()

    def sites(self, x: Any, directions: Any, **options: Any) -> Any:
        """What the sites hold for the samples x, on the device."""
        with self.model.scope():
            sites, held = self.model.sites(x, directions, **options)
            return sites, [[self.algebra.array(array) for array in arrays] for arrays in held]

    def product(self, left: Any, right: Any, outputs: str) -> np.ndarray:
        """Kernel of two tiles: summed over the layers on the device, and fetched once."""
        found = contract(self.algebra, left[0], left[1], right[1], outputs)
        return self.algebra.host(found)

    def own(self, tile: Any, outputs: str) -> np.ndarray:
        """Kernel of a tile with itself."""
        return self.algebra.host(symmetric(self.algebra, tile[0], tile[1], outputs))

    def whole(self, x: Any, directions: Any, *, outputs: str, chunk: int) -> np.ndarray:
        """Kernel of one tile with itself."""
        if len(x) <= self.few:
            return self.model.whole(x, directions, outputs=outputs, chunk=chunk)
        held = self.sites(x, directions, outputs=outputs, n=len(x), chunk=chunk)
        return self.own(held, outputs)


def budget(model: Model) -> int:
    """Bytes that what the layers of two tiles hold may take by default.

    On a GPU up to sixteen times as many, for there the passes on the CPU take the time, which each
    pair of tiles repeats for one of them; but a 32nd of what is free, as pairs of samples take more
    than the samples.
    """
    if not isinstance(model, DeviceModel) or model.algebra.xp is np:
        return MEMORY
    return max(MEMORY, min(16 * MEMORY, free_memory(model.algebra.xp) // 32))


def placed(model: Model, device: str | None) -> Model:
    """A model whose products are taken on a device.

    Parameters
    ----------
    model : Model
    device : {"cpu", "cuda"}, optional
        By default: of a torch module its own; of a Network "cuda" where JAX runs on a GPU, or
        where CuPy finds one.

    Raises
    ------
    InputError
        For another device, or "cpu" where the model itself is elsewhere.
    MissingPackageError
        For "cuda" without CuPy, a driver or a GPU; the message says what to install.
    """
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"device={device!r}: 'cpu', 'cuda' or None for what is there")
    if device is None:
        stays = model.home != "cpu" or not isinstance(model, JaxModel)
        device = model.home if stays else available_devices()[0]
    if device == model.home:
        if device == "cpu" and isinstance(model, JaxModel):
            return DeviceModel(model, HostEngine(), few=FEW)
        return model
    if model.home != "cpu":
        raise InputError(
            f"device={device!r}: the model is on {model.home}; move it to the CPU first (torch: "
            "module.cpu(), JAX: JAX_PLATFORMS=cpu), or leave device out"
        )
    try:
        return DeviceModel(model, engine_for(device))
    except DeviceError as error:
        raise MissingPackageError(str(error)) from error
