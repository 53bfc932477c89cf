"""The fused forms against golden values of neural-tangents, wherever a case has such a form."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tangency.theory.kernels as kernels
from tangency.theory.kernels.cntk import FusedConv
from tangency.theory.kernels.cntk_stages import cut
from tangency.theory.kernels.fused import FusedDense
from tangency.theory.kernels.fused_rows import fits

FOLDER = Path(__file__).with_name("golden")
SPEC = importlib.util.spec_from_file_location("golden_cases_of_fused", FOLDER / "cases.py")
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)
GOLDEN = np.load(FOLDER / "golden.npz")


def forms():
    found = {}
    for name, (kind, parametrisation, build) in MODULE.CASES.items():
        x1, _ = MODULE.inputs(kind)
        kernel = kernels.infinite_kernel(build(kernels), parametrisation=parametrisation)
        plan = kernel.plan(x1.shape[1:])
        if fits(plan):
            found[name] = FusedDense(plan, np.float64)
        elif cut(plan) is not None:
            found[name] = FusedConv(plan, np.float64)
    return found


FORMS = forms()


def test_enough_cases_have_a_fused_form():
    assert sum(isinstance(f, FusedDense) for f in FORMS.values()) >= 10
    assert sum(isinstance(f, FusedConv) for f in FORMS.values()) >= 1


@pytest.mark.parametrize("name", sorted(FORMS))
def test_agrees_with_neural_tangents(name):
    fused = FORMS[name]
    x1, x2 = MODULE.inputs(MODULE.CASES[name][0])
    for label, gram in (("same", fused(x1)), ("cross", fused(x1, x2))):
        for kind in ("nngp", "ntk"):
            want = GOLDEN[f"{name}/{label}/{kind}"]
            error = np.abs(getattr(gram, kind) - want) / np.abs(want)
            if label == "same":
                # The peer's diagonals are what test_infinite_golden.py decides about.
                np.fill_diagonal(error, 0.0)
            assert error.max() < 1e-9
