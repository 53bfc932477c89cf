"""The checker of chains: what it accepts is right in rationals, and tampering is refused."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from tangency.models.errors import NotProvedError
from tangency.verify.certificate import ChainWitness, GroupSort, Slopes, check_chain
from tangency.verify.lipschitz import Chain, lipsdp_witness

fraction = np.vectorize(Fraction, otypes=[object])


def chain_and_witness(activation, seed=0, sizes=(3, 4, 4, 2)):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) for a, b in pairwise(sizes)]
    chain = Chain.from_matrices(weights, activation)
    return chain, lipsdp_witness(chain)


def exactly_definite(matrix):
    while matrix.shape[0]:
        if matrix[0, 0] <= 0:
            return False
        matrix = matrix[1:, 1:] - np.outer(matrix[1:, 0], matrix[0, 1:]) / matrix[0, 0]
    return True


def check_in_rationals(chain, witness):
    """Decide the inequalities of `check_chain` exactly, on the weights as they are.

    Scaling by powers of two is undone on the witness: Q_k and the multipliers of the true chain.
    """
    later = [sum(witness.exponents[k + 1 :]) for k in range(len(chain.weights))]
    weights = [fraction(w.midpoint) for w in chain.weights]
    storage = [Fraction(witness.bound) ** 2 * fraction(np.eye(weights[0].shape[1]))]
    storage += [
        fraction(q) * Fraction(4) ** e for q, e in zip(witness.storage, later, strict=False)
    ]
    holds = exactly_definite(storage[-1] - weights[-1].T @ weights[-1])
    for k, activation in enumerate(chain.activations):
        w, before, after = weights[k], storage[k], storage[k + 1]
        multiplier = fraction(witness.multipliers[k]) * Fraction(4) ** later[k]
        n = w.shape[0]
        if isinstance(activation, GroupSort):
            # MaxMin in the basis of sums and differences: sums kept, differences nonexpansive.
            pairs = np.kron(np.eye(n // 2, dtype=int), [[1], [1]])
            spread = fraction(np.kron(np.eye(n // 2, dtype=int), [[1], [-1]]))
            half, doubled = Fraction(1, 2), 2 * multiplier[:, None]
            kept, moved = half * fraction(pairs @ pairs.T) @ w, half * spread.T @ w
            top = before - 2 * moved.T @ (doubled * moved) - kept.T @ after @ kept
            side = spread.T @ after @ kept
            corner = 2 * fraction(np.eye(n // 2)) * doubled - spread.T @ after @ spread
            holds &= bool((multiplier >= 0).all())
            holds &= exactly_definite(np.block([[top, -side.T], [-side, corner]]))
            continue
        lower, upper = (fraction(part) for part in activation.arrays(n))
        holds &= bool((multiplier >= 0).all())
        top = before + 2 * w.T @ ((multiplier * lower * upper)[:, None] * w)
        side = (multiplier * (lower + upper))[:, None] * w
        corner = fraction(np.diag(np.full(n, 2.0))) * multiplier[:, None] - after
        holds &= exactly_definite(np.block([[top, -side.T], [-side, corner]]))
    return holds


@pytest.mark.parametrize("activation", ["relu", "maxmin", (0.1, 1.0), (-0.3, 1.1), "abs"])
@pytest.mark.parametrize("seed", range(3))
def test_checker_agrees_with_rationals(activation, seed):
    chain, witness = chain_and_witness(activation, seed)
    assert check_chain(chain.weights, chain.activations, witness) == witness.bound
    assert check_in_rationals(chain, witness)
    for factor in (1 - 1e-12, 1 - 1e-10, 1 - 1e-8, 1 - 1e-6, 0.9, 1.1):
        other = replace(witness, bound=witness.bound * factor)
        try:
            check_chain(chain.weights, chain.activations, other)
        except NotProvedError:
            assert factor < 1
        else:
            assert check_in_rationals(chain, other)


@pytest.mark.parametrize("activation", ["relu", "maxmin", (-0.3, 1.1), ["relu", "maxmin"]])
def test_tampered_witnesses_are_refused(activation):
    chain, witness = chain_and_witness(activation)

    def refused(other, word, weights=chain.weights, activations=chain.activations):
        with pytest.raises(NotProvedError, match=word):
            check_chain(weights, activations, other)

    refused(replace(witness, bound=witness.bound * (1 - 1e-6)), "layer 1")
    for k in range(2):
        flipped = [m.copy() for m in witness.multipliers]
        flipped[k].flat[0] *= -1
        refused(replace(witness, multipliers=tuple(flipped)), f"layer {k + 1}: .*negative")
        bent = [q.copy() for q in witness.storage]
        bent[k][0, 1] += 1e-3
        refused(replace(witness, storage=tuple(bent)), "not symmetric")
        bent[k] = 0.99 * witness.storage[k]
        refused(replace(witness, storage=tuple(bent)), "not proved positive definite")
        bent[k] = np.full_like(bent[k], np.nan)
        refused(replace(witness, storage=tuple(bent)), "not finite")
    for bound in (0.0, -1.0, np.inf, np.nan, 1e300, 1e-300):
        refused(replace(witness, bound=bound), "bound|proved")
    refused(replace(witness, exponents=(0,)), "exponents")
    refused(replace(witness, exponents=(5, 0, 9**9)), "out of range")
    refused(replace(witness, exponents=tuple(e - 1 for e in witness.exponents)), "proved")
    refused(replace(witness, multipliers=()), "one multiplier")
    refused(replace(witness, storage=witness.storage[:1] * 3), "one multiplier")
    short = (witness.multipliers[0][..., :1], witness.multipliers[1])
    refused(replace(witness, multipliers=short), "shape")
    refused(replace(witness, storage=(np.eye(3), witness.storage[1])), "not 4 by 4")
    whole = tuple(m.astype(int) for m in witness.multipliers)
    refused(replace(witness, multipliers=whole), "float64")
    first, second, third = chain.weights
    refused(witness, "proved", weights=(second, *chain.weights[:0], second, third))
    changed = Chain.from_matrices([first, second.midpoint.T.copy(), third], list(chain.activations))
    refused(witness, "proved", weights=changed.weights)
    refused(witness, "no chain", activations=())
    wider = tuple(Slopes(-2.0, 2.0) if isinstance(a, Slopes) else a for a in chain.activations)
    if wider != chain.activations:
        refused(witness, "proved", activations=wider)


def test_linear_neurons_need_no_multiplier():
    half = np.array([[0.5]])
    witness = ChainWitness(0.2501, (0, 0), (np.zeros(1),), (np.array([[0.2501]]),))
    assert check_chain(Chain.from_matrices([half, half], "identity").weights, [Slopes(1.0, 1.0)],
                       witness) == 0.2501  # fmt: skip
    with pytest.raises(NotProvedError):
        check_chain(Chain.from_matrices([half, half]).weights, [Slopes(1.0, 1.01)], witness)


BLOCKED = """
import sys
for name in ("scipy", "jax", "cvxpy", "scs", "clarabel", "torch", "matplotlib"):
    sys.modules[name] = None
import numpy as np
from tangency.verify.certificate import ChainWitness, Matrix, Slopes, check_chain
import tangency.verify.lipschitz
one = np.eye(1)
witness = ChainWitness(1.01, (0, 0), (1.004 * one[0],), (1.001 * one,))
assert check_chain([Matrix(one), Matrix(one)], [Slopes(0.0, 1.0)], witness) == 1.01
"""


def test_the_checker_needs_numpy_alone():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
