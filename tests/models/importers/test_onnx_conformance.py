"""The operator tests that the package onnx makes for every backend: our outputs equal theirs."""

import glob
import os
import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402

from tangency.models import TangencyError, from_onnx  # noqa: E402
from tangency.models.importers.onnx_ops import READERS  # noqa: E402

#: Cases whose stored output is rounded to four digits, or whose float32 value is: x - LSE(x) at
#: x = 10000 has no more.
COARSE = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-3,
    "test_logsoftmax_large_number": 1e-4,
}

#: Every refusal must give one of these reasons.
REASONS = (
    "is a comparison, not numbers",
    "depends on the network's input",
    "is in training mode",
    "dilations",
    "larger than the full one",
    "repeated labels",
    "different values",
    "a constant base",
    "has the shape",
    "cubic",
    "tf_crop_and_resize",
    "antialias",
    "keep_aspect_ratio_policy",
    "align_corners with scales",
    "nothing is left",
    "which is empty",
    "peephole",
    "' is not supported",
)


@pytest.fixture(scope="module")
def cases():
    """The one-node cases by op type."""
    from onnx.backend.test.case.node import collect_testcases

    found = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    for case in collected:
        nodes = case.model.graph.node
        if len(nodes) == 1 and not nodes[0].domain and nodes[0].op_type in READERS:
            found[nodes[0].op_type].append(case)
    return found


def prepared(case, every):
    """The model with its first floating input (or every one) variable, the others constant."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given, wanted = (
        [np.asarray(a) if isinstance(a, np.generic) else a for a in part]
        for part in case.data_sets[0]
    )
    chosen = [
        i
        for i, a in enumerate(given)
        if isinstance(a, np.ndarray) and a.dtype in ("float32", "float64")
    ]
    if not chosen or not all(isinstance(a, np.ndarray) for a in [*given, *wanted]):
        return None
    chosen = chosen if every else chosen[:1]
    kept = [
        onnx.ValueInfoProto.FromString(model.graph.input[i].SerializeToString()) for i in chosen
    ]
    for i, a in enumerate(given):
        if i not in chosen:
            name = model.graph.input[i].name
            model.graph.initializer.append(numpy_helper.from_array(a, name))
    del model.graph.input[:]
    model.graph.input.extend(kept)
    if model.graph.node[0].op_type in ("LayerNormalization", "MaxPool", "Dropout"):
        del model.graph.output[1:]  # statistics, indices and masks are not ours to give
    return model, [np.array(given[i], order="C") for i in chosen], wanted


def compare(network, given, wanted, rtol):
    ours = network.evaluate(*given[: len(network.input_shapes)])
    ours = ours if isinstance(ours, tuple) else (ours,)
    for a, b in zip(ours, wanted, strict=False):
        assert a.shape == b.shape
        fine = np.isfinite(b)
        np.testing.assert_array_equal(np.where(fine, 0, a), np.where(fine, 0, b))
        scale = np.abs(b[fine]).max(initial=1e-30)
        assert np.abs(a - b)[fine].max(initial=0) <= rtol * scale


def run(model, given, wanted, rtol=1e-5):
    """Whether the model is imported (and right), or refused with a clear error."""
    try:
        network = from_onnx(model, batch_axis=None, check=False)
    except TangencyError as error:
        text = str(error)
        assert any(reason in text for reason in REASONS), text
        return "refused"
    compare(network, given, wanted, rtol)
    return "equal"


@pytest.mark.parametrize("op", sorted(READERS))
def test_outputs_equal_those_stored(cases, op):
    counts = Counter()
    for case in cases[op]:
        for every in (False, True):
            parts = prepared(case, every)
            if parts is not None:
                counts[run(*parts, COARSE.get(case.name, 1e-5))] += 1
    foreign = {"Constant", "CastLike", "Cast", "Trilu"}  # their cases hold other types
    if cases[op] and op not in foreign and not op.startswith(("Less", "Greater", "Not")):
        assert counts["equal"] > 0


def test_hundreds_of_cases_are_equal(cases):
    counts = Counter()
    for op in cases:
        for case in cases[op]:
            parts = prepared(case, False)
            if parts is not None:
                counts[run(*parts, COARSE.get(case.name, 1e-5))] += 1
    assert counts["equal"] >= 400
    assert counts["refused"] <= 75


def test_models_that_torch_exported_are_equal():
    base = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
    folders = sorted(glob.glob(os.path.join(base, "pytorch-*", "*")))
    counts = Counter()
    for folder in folders:
        data = os.path.join(folder, "test_data_set_0")

        def arrays(kind, data=data):
            found = []
            for i in range(len(glob.glob(os.path.join(data, f"{kind}_*.pb")))):
                with open(os.path.join(data, f"{kind}_{i}.pb"), "rb") as file:
                    found.append(numpy_helper.to_array(onnx.TensorProto.FromString(file.read())))
            return found

        path = os.path.join(folder, "model.onnx")
        try:
            network = from_onnx(path, batch_axis=None, check=False)
        except TangencyError as error:
            assert any(w in str(error) for w in ("INT64", "exponent"))  # noqa: PT017
            counts["refused"] += 1
            continue
        compare(network, [np.array(x, order="C") for x in arrays("input")], arrays("output"), 1e-5)
        counts["equal"] += 1
    assert counts["equal"] >= 113
    assert counts["refused"] <= 4
