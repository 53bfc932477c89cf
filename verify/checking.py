"""Certificates of networks: written after a search, checked against the model by anyone.

The check reads the model itself: the layers that a witness speaks about are derived from the
model's graph and weights, never from the file. For a local claim the interval bounds over its box,
or over each piece of it, run again, and the slopes that they leave are the ones of the proof. It
needs NumPy and the model's importer, and runs no part of the search.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tangency._version import __version__
from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.claim import Certificate, claim_of
from tangency.verify.certificate.file import read, write
from tangency.verify.checking_models import Model, prove
from tangency.verify.checking_outputs import outputs_certificate
from tangency.verify.checking_witness import output_of, region_of, witness_of
from tangency.verify.implicit_layer import ImplicitLayer
from tangency.verify.result import Bounds, LipschitzBound, Robustness

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


def check(certificate: Certificate | str | Path, network: Model, *, exact: bool = False) -> Check:
    """Check a certificate against a network.

    Parameters
    ----------
    certificate : Certificate or path
    network : Network or ImplicitLayer
        The model, read by an importer.
    exact : bool
        Check in rational arithmetic (extra ``[exact]``): small networks only, as chains of layers.

    Returns
    -------
    Check
        False in a condition where the claim was not proved, with the reason.

    Raises
    ------
    InputError
        If the file is no certificate, is damaged or of another version, or the network is too large
        or not of the kind for exact arithmetic.
    MissingPackageError
        If exact arithmetic is asked for without python-flint.
    UnsupportedError
        If this process flushes subnormals to zero: float64 proves nothing there.

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
        claim = prove(certificate, network, exact=exact)
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


def write_certificate(
    path: str | Path, bound: LipschitzBound | Bounds | Robustness, network: Model
) -> Certificate:
    """Write the certificate of a bound to a file, after checking it against the network.

    Parameters
    ----------
    path : path
    bound : LipschitzBound, Bounds or Robustness
        Certified. A Lipschitz bound of a network, near a sample, of pieces of a box, of
        convolutions by frequency, or of an implicit layer; bounds of outputs; robust samples.
    network : Network or ImplicitLayer
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


def certificate_of(bound: LipschitzBound | Bounds | Robustness, network: Model) -> Certificate:
    """Return the certificate of a bound, not checked yet; see :func:`write_certificate`."""
    if isinstance(bound, Bounds | Robustness):
        if isinstance(network, ImplicitLayer):
            raise InputError("the model is an implicit layer: give a bound by implicit_bound")
        return outputs_certificate(bound, network)
    if not bound.certified:
        raise NotProvedError("the bound is not certified: there is nothing to write")
    witness = witness_of(bound, network)
    claim = claim_of(witness, region_of(bound, network))
    output, entries = output_of(bound)
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
