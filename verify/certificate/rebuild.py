"""From a certificate and the layers of a model to what is proved: the checker's entries.

One for each kind of model: a chain of layers, a box cut into pieces, convolutions by frequency, an
implicit layer. What each takes besides the certificate is read from the model. The claim is derived
again from the witness that was proved; the certificate must state the same one, to the last bit.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.branch import BranchWitness, check_branch
from tangency.verify.certificate.chain import check_chain
from tangency.verify.certificate.claim import Certificate, Claim, Region, claim_of
from tangency.verify.certificate.conv_pieces import FrequencyWitness, Part, check_frequencies
from tangency.verify.certificate.implicit import ImplicitWitness, check_implicit
from tangency.verify.certificate.implicit_product import (
    ImplicitProductWitness,
    check_implicit_product,
)
from tangency.verify.certificate.layers import Activation, GroupSort, Slopes
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.certificate.outputs import LinearWitness
from tangency.verify.certificate.product import ProductWitness, check_product
from tangency.verify.certificate.witness import ChainWitness

__all__ = ["prove_branch", "prove_claim", "prove_frequencies", "prove_implicit"]

Layers: TypeAlias = tuple[Sequence[Matrix], Sequence[Activation]]


def prove_claim(
    certificate: Certificate,
    weights: Sequence[Matrix],
    activations: Sequence[Activation],
    *,
    exact: bool = False,
) -> Claim:
    """Prove a certificate's claim for given layers and return it.

    Parameters
    ----------
    certificate : Certificate
    weights : sequence of l Matrix
        Read from the model, never from the certificate.
    activations : sequence of l - 1 Slopes or GroupSort
        Likewise; where the claim has a region, slopes derived from the model over that box.
    exact : bool
        Whether to check in rational arithmetic: small networks only.

    Raises
    ------
    NotProvedError
        With the reason.
    InputError, UnsupportedError, MissingPackageError
        If the exact mode cannot take the network.
    """
    witness = certificate.witness
    if not isinstance(witness, ChainWitness | ProductWitness):
        raise _unfit(certificate, "a chain of layers")
    _check_layers((weights, activations), witness, exact)
    return _stated(certificate)


def prove_branch(
    certificate: Certificate, layers: Callable[[Region], Layers], *, exact: bool = False
) -> Claim:
    """Prove a certificate's claim on a box that was cut into pieces and return it.

    Parameters
    ----------
    certificate : Certificate
    layers : callable
        Weights and activations of the model, with the slopes that it derives over a box.
    exact : bool

    Raises
    ------
    NotProvedError, InputError, UnsupportedError, MissingPackageError
        As in `prove_claim`.
    """
    witness, region = certificate.witness, certificate.region
    if not isinstance(witness, BranchWitness) or region is None:
        raise _unfit(certificate, "a box in pieces")

    def prove(part: ChainWitness | ProductWitness, lower: Array, upper: Array) -> float:
        shape = region.lower.shape
        return _check_layers(
            layers(Region(lower.reshape(shape), upper.reshape(shape))), part, exact
        )

    check_branch(witness, region.lower.reshape(-1), region.upper.reshape(-1), prove)
    return _stated(certificate)


def prove_frequencies(
    certificate: Certificate, parts: Sequence[Part], *, exact: bool = False
) -> Claim:
    """Prove a certificate's claim for the pieces of a convolutional model and return it.

    Parameters
    ----------
    certificate : Certificate
    parts : sequence of ConvRun, Matrix or float
        Read from the model.
    exact : bool
        There is no such mode; refused.

    Raises
    ------
    NotProvedError
        With the reason.
    InputError
        If exact arithmetic is asked for.
    """
    witness = certificate.witness
    if not isinstance(witness, FrequencyWitness) or certificate.region is not None:
        raise _unfit(certificate, "convolutions on all of space")
    _refuse(exact, "convolutions by frequency")
    try:
        check_frequencies(parts, witness)
    except InputError as error:
        raise NotProvedError(f"the model's convolutions do not fit: {error}") from None
    return _stated(certificate)


def prove_implicit(
    certificate: Certificate,
    weight: Matrix,
    inputs: Matrix,
    output: Matrix,
    activation: Slopes | GroupSort,
    *,
    exact: bool = False,
) -> Claim:
    """Prove a certificate's claim for an implicit layer and return it.

    Parameters
    ----------
    certificate : Certificate
    weight, inputs, output : (n, n), (n, m) and (p, n) Matrix
        W, U and C of the model.
    activation : Slopes or GroupSort
    exact : bool
        There is no such mode; refused.

    Raises
    ------
    NotProvedError, InputError
        As in `prove_frequencies`.
    """
    witness = certificate.witness
    if certificate.region is not None:
        raise _unfit(certificate, "an implicit layer on all of space")
    _refuse(exact, "implicit layers")
    if isinstance(witness, ImplicitWitness):
        check_implicit(weight, inputs, output, activation, witness)
    elif isinstance(witness, ImplicitProductWitness):
        check_implicit_product(weight, inputs, output, activation, witness)
    else:
        raise _unfit(certificate, "an implicit layer")
    return _stated(certificate)


def _check_layers(layers: Layers, witness: ChainWitness | ProductWitness, exact: bool) -> float:
    """Return the proved bound of a chain, or raise."""
    if exact:
        from tangency.verify.certificate.exact import check_exact

        return check_exact(*layers, witness)
    if isinstance(witness, ProductWitness):
        return check_product(*layers, witness)
    return check_chain(*layers, witness)


def _stated(certificate: Certificate) -> Claim:
    """Return what the witness proves, if it is what the certificate states."""
    if isinstance(certificate.witness, LinearWitness):
        raise _unfit(certificate, "a Lipschitz constant")
    proved = claim_of(certificate.witness, certificate.region)
    if proved != certificate.claim:
        raise NotProvedError(
            f"the certificate states {certificate.claim} with the bound "
            f"{certificate.bound.hex()}, its witness proves {proved} with {proved.bound.hex()}"
        )
    return proved


def _unfit(certificate: Certificate, what: str) -> NotProvedError:
    kind = type(certificate.witness).__name__
    where = "" if certificate.region is None else " on a box"
    return NotProvedError(f"a {kind} for a claim{where} is no witness for {what}")


def _refuse(exact: bool, what: str) -> None:
    if exact:
        raise InputError(f"exact arithmetic checks chains of layers, not {what}: leave exact")
