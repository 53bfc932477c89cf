"""Certificates of networks: written after a search, checked against the model by anyone.

The check reads the model itself: the layers that a witness speaks about are derived from the
model's graph and weights, never from the file. For a local claim the interval bounds over its box,
or over each piece of it, run again, and the slopes that they leave are the ones of the proof. It
needs NumPy and the model's importer, and runs no part of the search.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tangency._version import __version__
from tangency.models.errors import InputError, NotProvedError, TangencyError
from tangency.verify.certificate.claim import Certificate, Claim, claim_of
from tangency.verify.certificate.encoding import CertificateError
from tangency.verify.certificate.file import read, write
from tangency.verify.certificate.outputs import OutputsClaim
from tangency.verify.certificate.source import Samples, Source, require_samples
from tangency.verify.certificate.validation import require_valid
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
    statement : mapping
        The claim as data: norms, bound and region, or sets, functions, bounds and labels; empty
        where the certificate is malformed.
    source : Source or None
        The data that the certificate says it was made from, which no proof is about.
    samples : tuple of int or None
        Those of the given data that the claim covers; None where none were given, or it does not.
    """

    holds: bool
    claim: str
    reason: str
    seconds: float
    bound: float | None = None
    exact: bool = False
    statement: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: Source | None = field(default=None, repr=False)
    samples: tuple[int, ...] | None = None

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
            "statement": dict(self.statement),
            "source": None if self.source is None else self.source.as_dict(),
            "samples": None if self.samples is None else list(self.samples),
        }


def check(
    certificate: Certificate | str | Path,
    network: Model,
    *,
    exact: bool = False,
    x: Any = None,
    eps: float | None = None,
    y: Any = None,
    norm: str | int = "inf",
    clip: tuple[float, float] | None = None,
    samples: Sequence[int] | None = None,
) -> Check:
    """Check a certificate against a network, and against the data that it is taken to be about.

    Parameters
    ----------
    certificate : Certificate or path
    network : Network or ImplicitLayer
        The model, read by an importer.
    exact : bool
        Check in rational arithmetic (extra ``[exact]``): small networks only, as chains of layers.
    x : (n, *input_shape) array, float32 or float64, optional
        Data: the claim must then cover the ball of radius eps around the samples, decided in exact
        arithmetic.
    eps : float, optional
        The radius; goes with x.
    y : (n,) array of integers, optional
        The claim must then be that these labels are kept, by margins above 0.
    norm : {"inf", 2, 1}
        Of the balls.
    clip : (float, float), optional
        The range that the balls are cut to.
    samples : sequence of int, optional
        The samples that must be covered; without it those that the certificate names, or all.

    Returns
    -------
    Check
        False in a condition where the claim was not proved, or is not about the given data, with
        the reason.

    Raises
    ------
    InputError
        If the file is no certificate, is damaged or of another version, the network is too large
        or not of the kind for exact arithmetic, or the data do not fit the input.
    MissingPackageError
        If exact arithmetic is asked for without python-flint.
    UnsupportedError
        If this process flushes subnormals to zero: float64 proves nothing there.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> from tangency.verify import certify_robust, lipschitz_bound
    >>> network = from_layers([2 * np.eye(2), np.ones((1, 2))], "maxmin")
    >>> bound = lipschitz_bound(network, method="product")
    >>> check(certificate_of(bound, network), network).holds
    True
    >>> network, x, y = from_layers([np.eye(2)], "relu"), np.eye(2), np.arange(2)
    >>> robust = certify_robust(network, x, y, 0.25, attack="none")
    >>> certificate = certificate_of(robust, network)
    >>> check(certificate, network, x=x, y=y, eps=0.25).samples
    (0, 1)
    >>> check(certificate, network, x=x, y=y, eps=0.3).reason[:57]
    'sample 0: the set of the claim leaves out a part of its b'
    """
    start = time.perf_counter()
    if not isinstance(certificate, Certificate):
        certificate = read_certificate(certificate)
    if (x is None) != (eps is None):
        raise InputError("x and eps go together: samples and the radius around them")
    about = {"y": y, "clip": clip, "samples": samples, "norm": None if norm == "inf" else norm}
    for name, given in about.items():
        if x is None and given is not None:
            raise InputError(f"{name} is about samples: give x and eps")
    covered, claim = None, None
    words, statement, reason = "nothing: it is malformed", {}, ""
    try:
        require_valid(certificate)
        words, statement = str(certificate), certificate.claim.as_dict()
        if x is not None and eps is not None:
            believed = Samples(x, eps, y, str(norm), clip, samples)
            covered = require_samples(certificate, believed)
        claim = _proved(certificate, network, exact)
    except (CertificateError, NotProvedError) as error:
        reason = str(error)
    seconds = time.perf_counter() - start
    bound = None if claim is None else claim.bound
    if claim is not None:
        words = claim.words(network.hash)
    return Check(
        claim is not None,
        words,
        reason,
        seconds,
        bound,
        exact,
        statement,
        certificate.source,
        covered if claim is not None else None,
    )


def _proved(certificate: Certificate, network: Model, exact: bool) -> Claim | OutputsClaim:
    """Prove a claim; what a crafted witness raises from inside the proof is a failure of it.

    Nothing is accepted by this. It names the error, so that one of this package's own is not taken
    for a false claim; `write_certificate`, whose witness is no stranger's, lets it pass.
    """
    try:
        with np.errstate(all="ignore"):  # no setting of the caller's decides what is proved
            return prove(certificate, network, exact=exact)
    except TangencyError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError) as error:
        failure: Exception = error
    except (TypeError, ValueError) as error:  # NumPy's shapes and dtypes
        failure = error
    raise NotProvedError(
        f"the witness does not fit the model ({type(failure).__name__} within the proof: "
        f"{' '.join(str(failure).split())})"
    ) from failure


def read_certificate(path: str | Path) -> Certificate:
    """Read a certificate; nothing in it is proved until it is checked.

    Raises
    ------
    InputError
        If the file is no certificate, is truncated, damaged or of another version.
    """
    return read(path)


def write_certificate(
    path: str | Path,
    bound: LipschitzBound | Bounds | Robustness,
    network: Model,
    *,
    source: Source | None = None,
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
    source : Source, optional
        The data that the input sets were made from, which the file then names, as
        ``Samples(x, eps).source([3])``; robust samples bring their own.

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
    certificate = certificate_of(bound, network, source)
    require_valid(certificate)
    try:
        with np.errstate(all="ignore"):
            prove(certificate, network)
    except NotProvedError as error:
        raise NotProvedError(f"the bound is not proved for this network: {error}") from None
    write(path, certificate)
    return certificate


def certificate_of(
    bound: LipschitzBound | Bounds | Robustness, network: Model, source: Source | None = None
) -> Certificate:
    """Return the certificate of a bound, not checked yet; see :func:`write_certificate`."""
    if isinstance(bound, Bounds | Robustness):
        if isinstance(network, ImplicitLayer):
            raise InputError("the model is an implicit layer: give a bound by implicit_bound")
        return outputs_certificate(bound, network, source)
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
        source,
    )
