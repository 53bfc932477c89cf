"""Certificates of networks: written after a search, checked against the model by anyone.

The check reads the model itself: the chain of layers that a witness speaks about is derived from
the network's graph and weights, never from the file. For a local claim the interval bounds over its
box run again, and the slopes that they leave are the ones of the proof. It needs NumPy and the
model's importer, and runs no part of the search.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tangency._version import __version__
from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.claim import Certificate, Region, Witness, claim_of
from tangency.verify.certificate.file import read, write
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.certificate.product import ProductWitness
from tangency.verify.certificate.rebuild import prove_claim

if TYPE_CHECKING:
    from tangency.models.network import Network
    from tangency.verify.lipschitz.result import LipschitzBound

__all__ = ["Certificate", "Check", "check", "read_certificate", "write_certificate"]


@dataclass(frozen=True)
class Check:
    """What the check of a certificate found.

    Parameters
    ----------
    holds : bool
        Whether the claim was proved for the network, in real arithmetic.
    claim : str
        The claim in words. Where it holds it is derived from what was proved; where it does not,
        it is what the certificate states.
    reason : str
        Why it does not hold; empty where it does.
    seconds : float
    bound : float or None
        The proved number; None where nothing was proved.
    exact : bool
        Whether rational arithmetic was used in place of directed rounding.
    """

    holds: bool
    claim: str
    reason: str
    seconds: float
    bound: float | None = None
    exact: bool = False

    def __bool__(self) -> bool:
        return self.holds

    def as_dict(self) -> dict[str, Any]:
        """Return what the command prints for programs."""
        return {
            "holds": self.holds,
            "claim": self.claim,
            "reason": self.reason,
            "bound": self.bound,
            "exact": self.exact,
            "seconds": self.seconds,
        }


def check(certificate: Certificate | str | Path, network: Network, *, exact: bool = False) -> Check:
    """Check a certificate against a network.

    Parameters
    ----------
    certificate : Certificate or path
    network : Network
        The model, read by an importer.
    exact : bool
        Check in rational arithmetic (extra ``[exact]``): small networks only.

    Returns
    -------
    Check
        False in a condition where the claim was not proved, with the reason.

    Raises
    ------
    InputError
        If the file is no certificate, is damaged or of another version, or the network is too large
        for exact arithmetic.
    MissingPackageError
        If exact arithmetic is asked for without python-flint.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> from tangency.verify import lipschitz_bound
    >>> network = from_layers([2 * np.eye(2), np.ones((1, 2))], "maxmin")
    >>> bound = lipschitz_bound(network, method="product")
    >>> check(certificate_of(bound, network), network).holds
    True
    """
    start = time.perf_counter()
    if not isinstance(certificate, Certificate):
        certificate = read_certificate(certificate)
    try:
        claim = _prove(certificate, network, exact)
    except NotProvedError as error:
        seconds = time.perf_counter() - start
        return Check(False, str(certificate), str(error), seconds, exact=exact)
    seconds = time.perf_counter() - start
    return Check(True, claim.words(network.hash), "", seconds, claim.bound, exact)


def read_certificate(path: str | Path) -> Certificate:
    """Read a certificate; nothing in it is proved until it is checked.

    Raises
    ------
    InputError
        If the file is no certificate, is truncated, damaged or of another version.
    """
    return read(path)


def write_certificate(path: str | Path, bound: LipschitzBound, network: Network) -> Certificate:
    """Write the certificate of a bound to a file, after checking it against the network.

    Parameters
    ----------
    path : path
    bound : LipschitzBound
        Certified.
    network : Network
        The one that was bounded.

    Returns
    -------
    Certificate

    Raises
    ------
    NotProvedError
        If the bound is not certified, or not of this network.
    InputError
        If the file cannot be written.
    """
    certificate = certificate_of(bound, network)
    found = check(certificate, network)
    if not found:
        raise NotProvedError(f"the bound is not proved for this network: {found.reason}")
    write(path, certificate)
    return certificate


def certificate_of(bound: LipschitzBound, network: Network) -> Certificate:
    """Return the certificate of a bound, not checked yet; see :func:`write_certificate`."""
    if not bound.certified:
        raise NotProvedError("the bound is not certified: there is nothing to write")
    witness: Witness | None = bound.witness
    box, pieces = getattr(bound, "box", None), getattr(bound, "boxes", 1)
    if pieces > 1 and witness is None:
        raise InputError(
            f"a bound from {pieces} pieces of a box has no certificate yet: bound it as one piece"
        )
    region = (
        None
        if box is None
        else Region(*(b.reshape(network.input_shape) for b in (box.lower, box.upper)))
    )
    output, _, margin = bound.output.partition(":")
    entries = tuple(map(int, margin.split(","))) if margin else ()
    if witness is None:
        if bound.method != "product":
            raise InputError(f"a bound by {bound.method} without a witness has no certificate")
        norms = tuple(spectral_norm_bound(w) for w in _chain(network, region).weights)
        witness = ProductWitness(bound.upper, norms, bound.norm, output, entries)
    claim = claim_of(witness, region)
    stated = (bound.norm, output, bound.upper, entries)
    if (claim.norm_in, claim.norm_out, claim.bound, claim.margin) != stated:
        raise NotProvedError(f"the witness proves {claim}, the bound is {bound.upper!r}")
    return Certificate(
        claim,
        network.hash,
        network.input_shape,
        network.output_shape,
        bound.method,
        __version__,
        witness,
    )


def _prove(certificate: Certificate, network: Network, exact: bool) -> Any:
    """Return the proved claim, or raise NotProvedError."""
    if certificate.network != network.hash:
        raise NotProvedError(
            f"the certificate is for the weights with sha256 {certificate.network}, the model's "
            f"are {network.hash}"
        )
    shapes = (certificate.input_shape, certificate.output_shape)
    if shapes != (network.input_shape, network.output_shape):
        raise NotProvedError(f"the certificate states the shapes {shapes[0]} -> {shapes[1]}")
    chain = _chain(network, certificate.claim.region)
    return prove_claim(certificate, chain.weights, chain.activations, exact=exact)


def _chain(network: Network, region: Region | None) -> Any:
    """Return the chain of a model, with the slopes of its own bounds over a box."""
    if region is None:
        from tangency.verify.lipschitz.network import chain_of

        return chain_of(network)
    from tangency.verify.bounds.box import Box
    from tangency.verify.lipschitz.local import local_chain

    shapes = (region.lower.shape, region.upper.shape)
    if shapes != (network.input_shape, network.input_shape):
        raise NotProvedError(f"the box of the claim is {shapes[0]}, not {network.input_shape}")
    try:
        return local_chain(network, Box(region.lower, region.upper))
    except InputError as error:
        raise NotProvedError(f"no slopes over the box of the claim: {error}") from None
