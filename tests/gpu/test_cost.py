"""Registers, spills and instructions of the kernels, for A100 and H100/H200, with no GPU."""

import numpy as np
import pytest

from tangency.gpu import compilers
from tangency.gpu.errors import DeviceError
from tangency.gpu.plans import Activation, Dense
from tangency.gpu.sources import dense_source, images_source, sites_source, stage_source

WAYS = [
    pytest.param(
        compilers.cost_by_nvcc,
        marks=pytest.mark.skipif(compilers.nvcc() is None, reason="nvcc is not installed"),
        id="nvcc",
    ),
    pytest.param(
        compilers.cost_by_nvrtc,
        marks=pytest.mark.skipif(compilers.nvrtc() is None, reason="no nvidia-cuda-nvrtc wheel"),
        id="nvrtc",
    ),
]


def deep(depth):
    plan = []
    for _ in range(depth):
        plan += [Dense(len(plan) - 1, 2.0, 0.0, 2.0), Activation(len(plan))]
    return tuple(plan)


@pytest.mark.parametrize("cost", WAYS)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_convolutional_float32(cost, arch):
    source = images_source(32, 32, np.float32)
    one, three = (
        cost(source, "images_kernel", arch, defines=(f"FIXED_DEPTH={k}",)) for k in (1, 3)
    )
    loop = cost(source, "images_kernel", arch)
    assert loop.registers <= 128
    assert loop.frame <= 64
    # Two layers of 32 rows more; the unrolled form spills more than the loop does.
    assert 40.0 < (three.instructions - one.instructions) / 64 <= 65.0


@pytest.mark.parametrize("cost", WAYS)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_dense_float32(cost, arch):
    few, many = (cost(dense_source(deep(k)), "dense_kernel", arch) for k in (4, 12))
    assert many.registers <= 64
    assert many.frame == 0
    # Four entries a thread, eight layers more.
    assert 20.0 < (many.instructions - few.instructions) / 32 <= 45.0


# Each compiler with one architecture: both know both, as the tests above show.
EACH = [
    pytest.param(way.values[0], arch, marks=way.marks, id=f"{way.id}-{arch}")
    for way, arch in zip(WAYS, ("sm_80", "sm_90"), strict=True)
]


@pytest.mark.parametrize(("cost", "arch"), EACH)
@pytest.mark.parametrize(("before", "after"), [(False, True), (True, True), (True, False)])
def test_stages_float32(cost, arch, before, after):
    """Between states in memory: as many registers, and one product more an entry and layer."""
    source = stage_source(32, 32, np.float32, from_memory=before, to_memory=after)
    loop = cost(source, "stage_kernel", arch)
    assert loop.registers <= 128
    # Addresses of 32 rows are made before the layers and behind them, in turn.
    assert loop.frame <= (512 if before and after else 64)
    if not after and arch == "sm_90":
        one, three = (
            cost(source, "stage_kernel", arch, defines=(f"FIXED_DEPTH={k}",)) for k in (1, 3)
        )
        assert 40.0 < (three.instructions - one.instructions) / 64 <= 66.0


@pytest.mark.parametrize(("cost", "arch"), EACH)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sites(cost, arch, dtype):
    """No spills with every family in one kernel; with ReLU alone all threads are resident."""
    whole = sites_source(dtype, 255)
    for name in ("source", "gather", "combine", "multiply", "factor", "linear"):
        found = cost(whole, f"sites_{name}_kernel", arch)
        assert found.registers <= 80
        assert found.frame <= 32  # return addresses of divisions and roots in float64
    assert cost(sites_source(dtype, 1), "sites_gather_kernel", arch).registers <= 32


@pytest.mark.parametrize("cost", WAYS)
def test_float64_compiles(cost):
    stage = stage_source(32, 32, np.float64, from_memory=True, to_memory=True)
    assert cost(stage, "stage_kernel", "sm_90").frame <= 256
    assert cost(images_source(32, 32, np.float64), "images_kernel", "sm_90").registers <= 255
    assert cost(dense_source(deep(3), np.float64), "dense_kernel", "sm_90").frame <= 16


@pytest.mark.parametrize("cost", WAYS)
def test_a_source_that_is_wrong_is_refused_with_the_compilers_words(cost):
    with pytest.raises(DeviceError, match="refused"):
        cost("int main( {", "none", "sm_90")
