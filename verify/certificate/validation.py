"""Whether the parts of a certificate fit one another, before anything is derived from them.

What a file holds has the types of its fields (see `encoding`) and nothing more. Here are the ranks,
shapes and ranges that a claim needs in order to say something; whether the witness fits the model
is the business of each proof.
"""

import re
from math import prod

import numpy as np

from tangency.verify.certificate.claim import Certificate, Claim
from tangency.verify.certificate.encoding import CertificateError
from tangency.verify.certificate.outputs import BallSet, OutputsClaim
from tangency.verify.certificate.source import Source

__all__ = ["require_valid"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,32}")  # printed as it stands: a name, and no sentence
_AXES = 8


def require_valid(certificate: Certificate) -> None:
    """Refuse a certificate whose claim is no statement about inputs and outputs of its shapes.

    Raises
    ------
    CertificateError
        Naming the part.
    """
    if not _DIGEST.fullmatch(certificate.network):
        raise CertificateError("network.sha256 is no sha256")
    for name, word in (("method", certificate.method), ("tangency", certificate.tangency)):
        if not _WORD.fullmatch(word):
            raise CertificateError(f"{name}: {word!r:.40} is no name")
    for name in ("input_shape", "output_shape"):
        shape = getattr(certificate, name)
        if len(shape) > _AXES or not all(0 < n < 2**31 for n in shape):
            raise CertificateError(f"network.{name}: {shape} is no shape")
    claim, inputs, outputs = certificate.claim, certificate.input_shape, certificate.output_shape
    if isinstance(claim, OutputsClaim):
        _require_outputs(claim, inputs, prod(outputs))
    else:
        _require_lipschitz(claim, inputs, prod(outputs))
    if certificate.source is not None:
        sets = len(claim.low) if isinstance(claim, OutputsClaim) else 1
        if certificate.region is None and isinstance(claim, Claim):
            raise CertificateError("a claim about all inputs has no source")
        _require_source(certificate.source, sets)


def _require_lipschitz(claim: Claim, inputs: tuple[int, ...], outputs: int) -> None:
    if not claim.bound >= 0:
        raise CertificateError(f"claim.bound: {claim.bound} is no bound of a norm")
    entries = 2 if claim.norm_out == "margin" else 0
    if len(claim.margin) != entries or not all(0 <= i < outputs for i in claim.margin):
        raise CertificateError(f"the margin {claim.margin} is not that of two of {outputs} entries")
    if claim.region is not None:
        low, high = claim.region.lower, claim.region.upper
        if not low.shape == high.shape == inputs:
            raise CertificateError(
                f"the box of the claim has the corners {low.shape} and {high.shape}, not {inputs}"
            )
        if not (low <= high).all():
            raise CertificateError("the box of the claim is empty: lower > upper")


def _require_outputs(claim: OutputsClaim, inputs: tuple[int, ...], outputs: int) -> None:
    sets, functions = claim.lower.shape if claim.lower.ndim == 2 else (0, 0)
    boxes = claim.low.shape == claim.high.shape == (sets, *inputs)
    wanted = {(count, functions, outputs) for count in (1, sets)}
    if not (sets and functions and boxes and claim.spec.shape in wanted):
        raise CertificateError(
            f"the claim speaks of boxes {claim.low.shape} to {claim.high.shape}, functions "
            f"{claim.spec.shape} and bounds {claim.lower.shape}, which do not fit {inputs} -> "
            f"{outputs} entries"
        )
    if not (claim.low <= claim.high).all():
        raise CertificateError("a box of the claim is empty")
    if claim.ball is not None:
        _require_ball(claim.ball, sets, inputs)


def _require_ball(ball: BallSet, sets: int, inputs: tuple[int, ...]) -> None:
    fits = ball.center.shape in {(n, *inputs) for n in (1, sets)}
    fits = fits and ball.radius.shape in {(n,) for n in (1, sets)}
    if not fits or ball.norm not in (1, 2) or not (ball.radius >= 0).all():
        raise CertificateError(
            f"balls of centre {ball.center.shape}, radius {ball.radius.shape} and norm "
            f"{ball.norm} do not fit {sets} sets of {inputs}"
        )


def _require_source(source: Source, sets: int) -> None:
    if source.samples.shape != (sets,) or (source.samples < 0).any():
        raise CertificateError(f"source.samples: these are not {sets} places in the data")
    if len(np.unique(source.samples)) != sets:
        raise CertificateError("source.samples: one stands there twice")
    if not _DIGEST.fullmatch(source.data):
        raise CertificateError("source.data is no sha256")
    if not source.eps >= 0:
        raise CertificateError(f"source.eps: {source.eps} is no radius")
