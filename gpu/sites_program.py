"""From a plan on sites to the launches that carry it out.

A step is one layer and the activation behind it. A run of 3 x 3 convolutions of stride 1 with zero
padding and piecewise linear activations, with pairs of sites all along, is a stage: all its layers
go through registers in one launch, and a global mean behind it never comes to memory at all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from tangency.gpu.images_plan import ImageLayer
from tangency.gpu.plans import Activation, Series
from tangency.gpu.sites_plan import Convolution, Pooling, SitesPlan, sources_of, window_table

__all__ = ["Launch", "Program", "Stage", "Step", "make_program"]


@dataclass(frozen=True)
class Step:
    """One layer (-1: the covariances of the input) and the activation behind it."""

    layer: int
    activation: int | None
    sources: tuple[int, ...]

    @property
    def result(self) -> int:
        """The layer whose state is made."""
        return self.layer if self.activation is None else self.activation


@dataclass(frozen=True)
class Stage:
    """A run of layers in registers.

    Attributes
    ----------
    activations : tuple of int
    images : tuple of ImageLayer
    grid : (height, width)
    sources : (int,)
        -1 begins with the images themselves.
    pool : int or None
        A global mean behind it, in place of a state in memory.
    """

    activations: tuple[int, ...]
    images: tuple[ImageLayer, ...]
    grid: tuple[int, int]
    sources: tuple[int]
    pool: int | None

    @property
    def result(self) -> int:
        """The layer whose state is made."""
        return self.activations[-1] if self.pool is None else self.pool


Launch = Step | Stage


@dataclass(frozen=True)
class Program:
    """Launches in order, and what is held between them.

    Attributes
    ----------
    launches : tuple of Launch
    full : dict
        Whether the state of each layer holds pairs of different sites.
    last : dict
        The launch that reads a state last.
    """

    launches: tuple[Launch, ...]
    full: dict[int, bool]
    last: dict[int, int]

    def widest(self, plan: SitesPlan) -> int:
        """Entries of a pair that are held together where they are most."""
        held: dict[int, int] = {}
        most = 0
        for n, launch in enumerate(self.launches):
            sites = plan.sites_of[launch.result]
            made = sites**2 if self.full[launch.result] else sites
            between = 0
            if isinstance(launch, Stage) and launch.pool is not None:
                between = launch.grid[0] * launch.grid[1]
            elif isinstance(launch, Step) and launch.layer >= 0:
                layer = plan.layers[launch.layer]
                if isinstance(layer, Pooling):
                    between = layer.matrix.size
            held[launch.result] = made
            most = max(most, sum(held.values()) + between)
            held = {k: v for k, v in held.items() if self.last.get(k, -1) > n}
        return most


def make_program(
    plan: SitesPlan,
    ends: tuple[int, ...],
    *,
    fused: bool = True,
    stages: bool = True,
    held: bool = True,
) -> Program:
    """The launches that some layers ask for.

    Parameters
    ----------
    plan : SitesPlan
    ends : tuple of int
    fused : bool
        Whether a step applies the activation behind it; without, each layer has its own.
    stages : bool
        Whether runs of layers go through registers; with ``fused`` alone.
    held : bool
        Whether the states asked for are kept to the end.
    """
    full = plan.needed(ends)
    readers = Counter(k for i in full if i >= 0 for k in sources_of(plan.layers[i]))
    readers.update(ends)
    behind = {k: i for i in full if i >= 0 for k in sources_of(plan.layers[i])}
    only = {k: i for k, i in behind.items() if readers[k] == 1}
    launches: list[Launch] = []
    made: set[int] = set()
    for i in sorted(k for k in full if k >= 0):
        if i in made:
            continue
        layer = plan.layers[i]
        stage = _stage(plan, i, only, full) if fused and stages else None
        if stage is not None:
            launches.append(stage)
            made |= {
                *stage.activations,
                *(sources_of(plan.layers[k])[0] for k in stage.activations),
            }
            made |= {stage.result}
            continue
        after = only.get(i) if fused else None
        if after is not None and not isinstance(plan.layers[after], Activation | Series):
            after = None
        launches.append(Step(i, after, sources_of(layer)))
        made |= {i} if after is None else {i, after}
    if any(isinstance(launch, Step) and -1 in launch.sources for launch in launches) or -1 in ends:
        launches.insert(0, Step(-1, None, ()))
    last = {k: n for n, launch in enumerate(launches) for k in launch.sources}
    if held:
        last.update(dict.fromkeys(ends, len(launches)))
    return Program(tuple(launches), full, last)


def _stage(plan: SitesPlan, head: int, only: dict[int, int], full: dict[int, bool]) -> Stage | None:
    """The longest stage that begins with a layer; None where there is none worth it."""
    activations: list[int] = []
    images: list[ImageLayer] = []
    at: int | None = head
    grid = None
    while at is not None:
        conv, after = plan.layers[at], only.get(at)
        act = None if after is None else plan.layers[after]
        if not (
            isinstance(conv, Convolution)
            and isinstance(act, Activation)
            and after is not None
            and full[conv.source]
            and full[after]
            and (grid is None or conv.grid == grid)
            and _through_registers(plan, conv, act)
        ):
            break
        negative, positive, _ = act.parameters
        images.append(
            ImageLayer(conv.weight, conv.bias, conv.weight_gain, conv.bias_gain, negative, positive)
        )
        activations.append(after)
        grid, at = conv.grid, only.get(after)
    if not activations or grid is None:
        return None
    source = sources_of(plan.layers[head])[0]
    pool = only.get(activations[-1])
    sites = grid[0] * grid[1]
    layer = None if pool is None else plan.layers[pool]
    if not (
        isinstance(layer, Pooling)
        and len(layer.matrix) == 1
        and np.allclose(layer.matrix, 1.0 / sites, rtol=1e-15)
    ):
        pool = None
    if len(images) < 2 and source >= 0 and pool is None:
        return None  # a step moves no more memory than the stage would
    return Stage(tuple(activations), tuple(images), grid, (source,), pool)


def _through_registers(plan: SitesPlan, conv: Convolution, act: Activation) -> bool:
    if act.kink is None or conv.grid is None or max(conv.grid) > 32:
        return False
    height, width = conv.grid
    return (
        conv.weight > 0.0
        and conv.bias >= 0.0
        and conv.table.shape == (height * width, 9)
        and plan.sites_of[conv.source] == height * width
        and np.array_equal(np.sort(conv.table, axis=1), np.sort(window_table(conv.grid), axis=1))
    )
