"""Records of activations that act on groups of neurons: what is known of them, as data."""

from dataclasses import dataclass

from tangency.models.errors import InputError

__all__ = ["GROUP_ACTIVATIONS", "GroupActivation", "get_group"]


@dataclass(frozen=True)
class GroupActivation:
    """A map of groups of neurons.

    Attributes
    ----------
    name, formula, source : str
        As for an :class:`Activation`.
    lipschitz : float or None
        Lipschitz constant in the Euclidean norm; None if it depends on parameters.
    preserves : tuple of str
        What every group keeps: "sum", "norm" (of values), "gradient norm", "order" ...
    group : int or None
        Neurons in a group; None for the whole layer or as chosen.
    """

    name: str
    formula: str
    lipschitz: float | None
    preserves: tuple[str, ...]
    group: int | None
    source: str


GROUP_ACTIVATIONS: tuple[GroupActivation, ...] = (
    GroupActivation(
        "groupsort",
        "each group of n neurons sorted",
        1.0,
        ("sum", "norm", "gradient norm"),
        None,
        "arXiv 1811.05381",
    ),
    GroupActivation(
        "householder",
        "z if v'z > 0 else (I - 2 v v') z, |v| = 1",
        1.0,
        ("norm", "gradient norm"),
        2,
        "arXiv 2108.04062",
    ),
    GroupActivation(
        "maxmin",
        "(a, b) -> (max(a, b), min(a, b))",
        1.0,
        ("sum", "norm", "gradient norm"),
        2,
        "arXiv 1811.05381",
    ),
    GroupActivation(
        # max is 1-Lipschitz in the Euclidean norm, and the groups are disjoint
        "maxout",
        "max over each group of n neurons",
        1.0,
        ("order",),
        None,
        "arXiv 1302.4389",
    ),
    GroupActivation(
        # The Jacobian diag(p) - p p' has norm at most 1/2: Gershgorin gives 2 p_i (1 - p_i).
        "softmax",
        "exp(z_i) / sum_j exp(z_j)",
        0.5,
        ("order",),
        None,
        "arXiv 1704.00805 (1-Lipschitz), 2510.23012 (1/2)",
    ),
)
"""All group activations."""


def get_group(name: str) -> GroupActivation:
    """Return the group activation of that name.

    Raises
    ------
    InputError
        If there is none; the message lists them.
    """
    for record in GROUP_ACTIVATIONS:
        if record.name == name:
            return record
    known = ", ".join(record.name for record in GROUP_ACTIVATIONS)
    raise InputError(f"no group activation is called {name!r}; there are: {known}")
