"""The check of claims about outputs: linear bounds derived again from the model.

The witness names a method and slopes. Intermediate bounds and the offsets of all lines come from
the rigorous walks over the model's own graph and weights, so that a wrong slope costs tightness and
never truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency._version import __version__
from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.models.intervals import Interval
from tangency.verify.certificate.claim import Certificate
from tangency.verify.certificate.outputs import BallSet, LinearWitness, NodeSlopes, OutputsClaim
from tangency.verify.certificate.source import Source
from tangency.verify.rigorous.forward import Forward
from tangency.verify.rigorous.lowering import SIMPLE, lowered
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import intermediate
from tangency.verify.rigorous.sets import BallPart, InputSet
from tangency.verify.rigorous.specification import elided, entrance, specified
from tangency.verify.rigorous.walk import walk

if TYPE_CHECKING:
    from tangency.models.network import Network
    from tangency.verify.result import Bounds, Robustness

__all__ = ["outputs_certificate", "prove_outputs"]

Array = Any


#: What a stated bound leaves for machines that sum in another order, relative to its size.
SLACK = 2.0**-40


def outputs_certificate(
    result: Bounds | Robustness, network: Network, source: Source | None = None
) -> Certificate:
    """Return the certificate of bounds of outputs, or of robust samples, not checked yet.

    It states a little less than was proved, so that it holds where sums are rounded in another
    order; what is positive stays positive.

    Raises
    ------
    NotProvedError
        If nothing was proved: estimates, or no sample is robust.
    InputError
        If no certificate can hold it: several inputs or outputs, or the joint search, or a bound
        that is infinite.
    """
    if not result.certified:
        raise NotProvedError("the bounds are an estimate: there is nothing to write")
    statement, verified = result.statement, getattr(result, "verified", None)
    if verified is not None and not verified.any():
        raise NotProvedError("no sample was proved robust: there is nothing to write")
    if statement is None:
        raise InputError(
            f"bounds by {result.method} have no certificate here: it takes networks of one input "
            "and one output, and slopes of the last pass (mode='last')"
        )
    if verified is not None:
        statement = statement.take(verified)
    inputs = statement.inputs
    samples = len(statement.lower)
    low, high = (
        np.ascontiguousarray(np.broadcast_to(v, (samples, *inputs.shape)))
        for v in (inputs.lower, inputs.upper)
    )
    part = inputs.ball
    ball = None if part is None else BallSet(part.center, part.radius, part.norm)
    slopes = tuple(
        NodeSlopes(i, tuple(np.asarray(v, dtype=np.float64) for v in own))
        for i, own in sorted(statement.slopes.items())
    )
    witness = LinearWitness(statement.method, statement.plain, slopes)
    region = InputSet(low, high, part)
    spec, lower = statement.minima()
    if not np.isfinite(lower).all():
        raise InputError("a bound is infinite, and has no place in a certificate")
    proved = np.minimum(lower_bounds(network, region, spec, witness), lower)
    if not (proved >= lower - 1e-9 * (1.0 + np.abs(lower))).all():
        raise NotProvedError("the bounds are not proved for this network: are they of another one?")
    stated = proved - SLACK * np.abs(proved)
    claim = OutputsClaim(low, high, np.asarray(spec, dtype=np.float64), stated, ball)
    return Certificate(
        claim,
        network.hash,
        network.input_shape,
        network.output_shape,
        result.method,
        __version__,
        witness,
        getattr(result, "source", None) if source is None else source,
    )


def prove_outputs(certificate: Certificate, network: Network) -> OutputsClaim:
    """Return the claim of a certificate about outputs, proved from the model.

    Raises
    ------
    NotProvedError
        With the reason: what does not fit, or which bound was not reached.
    """
    claim, witness = certificate.claim, certificate.witness
    if not isinstance(claim, OutputsClaim) or not isinstance(witness, LinearWitness):
        kind = type(witness).__name__
        raise NotProvedError(f"a {kind} is no witness for a claim about outputs")
    if len(network.structure.inputs) != 1 or len(network.structure.outputs) != 1:
        raise NotProvedError("claims about outputs are of networks of one input and one output")
    own = claim.ball
    ball = None if own is None else BallPart(own.center, own.radius, own.norm)
    region = InputSet(claim.low, claim.high, ball)
    try:
        proved = lower_bounds(network, region, claim.spec, witness)
    except (InputError, UnsupportedError) as error:
        raise NotProvedError(f"no bounds over the inputs of the claim: {error}") from None
    short = ~(proved >= claim.lower)
    if short.any():
        n, s = (int(i) for i in np.argwhere(short)[0])
        raise NotProvedError(
            f"set {n + 1} of {len(short)}, function {s + 1}: {float(proved[n, s])!r} is proved, "
            f"{float(claim.lower[n, s])!r} is stated"
        )
    return claim


def lower_bounds(network: Network, region: InputSet, spec: Array, witness: LinearWitness) -> Array:
    """Proved lower bounds ``(N, S)`` of linear functions of the output, by a witness's method."""
    spec = np.broadcast_to(spec, (region.samples, *spec.shape[1:]))
    before = entrance(network)
    if witness.method == "ibp":
        box = walk(network, [region.interval], [before]).found[before]
        return specified(network, spec, box).lower
    low = lowered(network)
    engine = NumpyEngine(low.network, [region], source=network, origin=low.origin)
    (end,), before = low.network.structure.outputs, entrance(low.network)
    if witness.method == "forward":
        last = elided(low.network)
        params: Mapping[str, Array] = {} if last is None else engine.weights(last)
        forward = Forward(engine, plain=witness.plain)
        known, lines = forward.run({end, before})
        found, _ = forward.mapped(lines[before], spec, params.get("weight"), params.get("bias"))
    else:
        inner, own = (
            _slopes(part, low.network, region.samples, rows)
            for part, rows in ((witness.inner, 1), (witness.last, spec.shape[1]))
        )
        known = intermediate(
            engine, {end, before}, method=witness.method, plain=witness.plain, slopes=inner
        )
        found, _ = engine.sweep(end, known, spec=spec, slopes={**inner, **own}, upper=False)
    if witness.plain:
        return found
    return np.maximum(found, specified(low.network, spec, Interval(*known[before])).lower)


def _slopes(
    parts: tuple[NodeSlopes, ...], network: Network, samples: int, rows: int
) -> dict[int, tuple[Array, ...]]:
    nodes, found = network.structure.nodes, dict[int, tuple[Array, ...]]()
    for part in parts:
        known = 0 <= part.node < len(nodes) and isinstance(nodes[part.node].op, SIMPLE)
        if not known or part.node in found:
            raise NotProvedError(f"slopes of node {part.node}, which has no relaxation")
        shape = nodes[part.node].shape
        for v in part.slopes:
            fits = v.ndim == len(shape) + 2 and v.shape[2:] == shape
            if not fits or v.shape[0] not in (1, samples) or v.shape[1] not in (1, rows):
                raise NotProvedError(f"slopes {v.shape} do not fit node {part.node}, of {shape}")
        if len(part.slopes) != 2 * len(nodes[part.node].inputs):
            raise NotProvedError(f"{len(part.slopes)} arrays of slopes for node {part.node}")
        found[part.node] = part.slopes
    return found
