"""What a bound carries, as the witness that a certificate of it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.errors import InputError
from tangency.verify.certificate.branch import BranchWitness
from tangency.verify.certificate.claim import LipschitzWitness, Region
from tangency.verify.certificate.implicit import ImplicitWitness
from tangency.verify.certificate.implicit_product import ImplicitProductWitness
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.certificate.product import ProductWitness
from tangency.verify.certificate.witness import ChainWitness
from tangency.verify.checking_models import Model, layers_of
from tangency.verify.implicit_layer import ImplicitLayer

if TYPE_CHECKING:
    from tangency.models.network import Network
    from tangency.verify.result import LipschitzBound

__all__ = ["output_of", "region_of", "witness_of"]


def region_of(bound: LipschitzBound, model: Model) -> Region | None:
    """Return the box that a bound holds on; None where it holds everywhere."""
    box = getattr(bound, "box", None)
    return None if box is None else _region(box, model.input_shape)


def witness_of(bound: LipschitzBound, model: Model) -> LipschitzWitness:
    """Return the witness of a bound, not checked yet.

    Parameters
    ----------
    bound : LipschitzBound
        Or a LocalBound, ConvBound or ImplicitBound.
    model : Network or ImplicitLayer

    Raises
    ------
    InputError
        If the bound carries nothing that a certificate could hold, or is not of such a model.
    """
    if isinstance(model, ImplicitLayer):
        return _of_layer(bound, model)
    if hasattr(bound, "posed"):
        raise InputError(
            "a bound of an implicit layer: give an ImplicitLayer in place of a Network"
        )
    proof: LipschitzWitness | None = getattr(bound, "proof", None)
    if proof is not None:
        return proof
    pieces = getattr(bound, "pieces", ())
    if len(pieces) > 1:
        return _of_pieces(bound, model)
    own = pieces[0].witness if pieces else bound.witness
    return _of_chain(bound, bound.upper, own, model, region_of(bound, model))


def _of_layer(bound: Any, layer: ImplicitLayer) -> ImplicitWitness | ImplicitProductWitness:
    """Return the witness of an implicit layer's bound, or that of its norms."""
    if not hasattr(bound, "posed"):
        raise InputError("the model is an implicit layer: give a bound by implicit_bound")
    if bound.proof is not None:
        proof: ImplicitWitness = bound.proof
        return proof
    w, u, c = (spectral_norm_bound(part) for part in (layer.W, layer.U, layer.C))
    return ImplicitProductWitness(bound.upper, (w, u, c))


def _of_pieces(bound: Any, network: Network) -> BranchWitness:
    """Return the pieces of a box, each with its own witness."""
    shape = network.input_shape
    parts = [
        _of_chain(bound, piece.upper, piece.witness, network, _region(piece.box, shape))
        for piece in bound.pieces
    ]
    lower, upper = (
        np.stack([getattr(piece.box, side).reshape(-1) for piece in bound.pieces])
        for side in ("lower", "upper")
    )
    output, margin = output_of(bound)
    return BranchWitness(bound.upper, lower, upper, tuple(parts), bound.norm, output, margin)


def _of_chain(
    bound: LipschitzBound,
    upper: float,
    own: ChainWitness | None,
    network: Network,
    region: Region | None,
) -> ChainWitness | ProductWitness:
    """Return the witness that there is, or that of a product of norms."""
    if own is not None:
        return own
    if region is None and bound.method != "product":
        raise InputError(f"a bound by {bound.method} without a witness has no certificate")
    weights, _ = layers_of(network, region)
    norms = tuple(spectral_norm_bound(w) for w in weights)
    return ProductWitness(upper, norms, bound.norm, *output_of(bound))


def output_of(bound: LipschitzBound) -> tuple[str, tuple[int, ...]]:
    """Return the kind of output that a bound speaks about, and the entries of a margin."""
    kind, _, margin = bound.output.partition(":")
    return kind, tuple(map(int, margin.split(","))) if margin else ()


def _region(box: Any, shape: tuple[int, ...]) -> Region:
    lower, upper = (np.array(side, np.float64).reshape(shape) for side in (box.lower, box.upper))
    return Region(lower, upper)
