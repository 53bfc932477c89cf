"""What the checker reads of a model: its layers, the slopes on a box, runs of convolutions.

Everything here is derived from the graph and the weights of the model alone. A search may have done
the same before; nothing of what it found is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.certificate.branch import BranchWitness
from tangency.verify.certificate.claim import Certificate, Claim, Region
from tangency.verify.certificate.conv_pieces import FrequencyWitness, Part
from tangency.verify.certificate.directed import require_gradual_underflow
from tangency.verify.certificate.layers import Activation
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.outputs import OutputsClaim
from tangency.verify.certificate.rebuild import (
    prove_branch,
    prove_claim,
    prove_frequencies,
    prove_implicit,
)
from tangency.verify.chain.conv_factors import Factor
from tangency.verify.chain.conv_pieces import pieces_of
from tangency.verify.chain.networks import chain_of, local_chain
from tangency.verify.chain.unroll import Unrolled, is_plain, unroll
from tangency.verify.implicit_layer import ImplicitLayer
from tangency.verify.sets import Box

if TYPE_CHECKING:
    from tangency.models.network import Network

__all__ = ["Model", "layers_of", "parts_of", "prove"]

Model: TypeAlias = "Network | ImplicitLayer"


def prove(certificate: Certificate, model: Model, *, exact: bool = False) -> Claim | OutputsClaim:
    """Return the claim of a certificate, proved from the model's own weights.

    Raises
    ------
    NotProvedError
        With the reason: another model, another shape, or what could not be proved.
    InputError, MissingPackageError
        If exact arithmetic cannot take the model.
    UnsupportedError
        If this process flushes subnormals to zero.
    """
    require_gradual_underflow()
    if certificate.network != model.hash:
        raise NotProvedError(
            f"the certificate is for the weights with sha256 {certificate.network}, the model's "
            f"are {model.hash}"
        )
    shapes = (certificate.input_shape, certificate.output_shape)
    if shapes != (model.input_shape, model.output_shape):
        raise NotProvedError(f"the certificate states the shapes {shapes[0]} -> {shapes[1]}")
    if isinstance(model, ImplicitLayer):
        weight, inputs, output = (Matrix(part) for part in (model.W, model.U, model.C))
        return prove_implicit(certificate, weight, inputs, output, model.constraint, exact=exact)
    region, witness = certificate.region, certificate.witness
    if isinstance(certificate.claim, OutputsClaim):
        from tangency.verify.checking_outputs import prove_outputs

        if exact:
            raise InputError("exact arithmetic checks Lipschitz bounds, not outputs: leave exact")
        return prove_outputs(certificate, model)
    if isinstance(witness, FrequencyWitness):
        return prove_frequencies(certificate, parts_of(model), exact=exact)
    if isinstance(witness, BranchWitness):
        _require_shape(region, model)
        parts = unroll(model) if is_plain(model) else None  # once for all pieces
        return prove_branch(certificate, lambda box: layers_of(model, box, parts), exact=exact)
    weights, activations = layers_of(model, region)
    return prove_claim(certificate, weights, activations, exact=exact)


def layers_of(
    network: Network, region: Region | None, unrolled: Unrolled | None = None
) -> tuple[Sequence[Matrix], Sequence[Activation]]:
    """Return the weights and activations of a model, with the slopes of its own bounds over a box.

    Raises
    ------
    NotProvedError
        If the box does not fit, or a slope is not bounded on it.
    InputError, UnsupportedError
        If the model is no chain.
    """
    if region is None:
        chain = chain_of(network)
        return chain.weights, chain.activations
    _require_shape(region, network)
    try:
        chain = local_chain(network, Box(region.lower, region.upper), unrolled=unrolled)
    except InputError as error:
        raise NotProvedError(f"no slopes over the box of the claim: {error}") from None
    return chain.weights, chain.activations


def parts_of(network: Network) -> list[Part]:
    """Return the pieces of a convolutional model, from the input to the output.

    Raises
    ------
    NotProvedError
        If a layer of the model has no place in such a proof.
    """
    try:
        pieces = pieces_of(network)
    except (InputError, UnsupportedError) as error:
        raise NotProvedError(f"the model is not bounded by frequencies: {error}") from None
    parts: list[Part] = []
    for piece in pieces:
        if not isinstance(piece, Factor):
            parts.append(piece)
        else:
            parts.append(piece.bound if piece.matrix is None else Matrix.of(piece.matrix))
    return parts


def _require_shape(region: Region | None, network: Network) -> None:
    if region is None:
        return
    shapes = (region.lower.shape, region.upper.shape)
    if shapes != (network.input_shape, network.input_shape):
        raise NotProvedError(f"the box of the claim is {shapes[0]}, not {network.input_shape}")
