"""Records that a user writes: what they say is never believed, and what cannot be read is refused.

The references are closed forms: values of a formula at points, and slopes known by calculus.
"""

import math

import numpy as np
import pytest

from tangency.models import InputError, from_layers
from tangency.models.activations import Activation, get, names, register
from tangency.models.activations.continuity import continuity
from tangency.models.activations.jets import jet
from tangency.models.activations.reading import check_formula
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.namespace import jax_namespace, numpy_namespace
from tangency.verify import Box, bound, jacobian_bounds, lipschitz_bound, local_lipschitz

ENDS = ((-1.0, 0.0), (1.0, 0.0))


def record(value, name="own", limits=ENDS, core=(-1.0, 1.0), **claims):
    return Activation(name, value, limits=limits, core=core, **claims)


def network(activation, size=1):
    return from_layers([np.eye(size)] * 2, activation)


def box(low, high):
    return Box(np.array([[low]]), np.array([[high]]))


def tanh(nx, x):
    return nx.tanh(x)


PROOFS = {
    "range": lambda act: act.range_on(0.0, 0.5),
    "slopes": lambda act: act.slopes_on(0.0, 0.5),
    "all slopes": lambda act: act.slope_range,
    "lines": lambda act: act.relaxation(0.0, 0.5),
    "intervals": lambda act: bound(network(act), box(0.0, 0.5), method="ibp"),
    "crown": lambda act: bound(network(act), box(0.0, 0.5), method="crown"),
    "jacobian": lambda act: jacobian_bounds(network(act), box(0.0, 0.5)),
    "lipschitz": lambda act: lipschitz_bound(network(act), attack=False),
}

# -- what a formula may do -------------------------------------------------------------------

UNREADABLE = {
    "equal": lambda nx, x: nx.where(x == 0, 1.0 + x, nx.tanh(x)),
    "unequal": lambda nx, x: nx.where(x != 0, nx.tanh(x), 1.0 + x),
    "equal the other way": lambda nx, x: nx.where(0.0 == x, 1.0 + x, nx.tanh(x)),
    "a step equal": lambda nx, x: nx.where(nx.floor(x) == x, 1.0 + x, nx.tanh(x)),
    "truthy": lambda nx, x: nx.where(x, nx.tanh(x), 1.0 + x),
    "a step for a condition": lambda nx, x: nx.where(nx.sign(x), nx.tanh(x), 1.0 + x),
    "a number for a condition": lambda nx, x: nx.where(1.0, nx.tanh(x), x),
    "a branch": lambda nx, x: nx.tanh(x) if x else 1.0 + x,
    "not": lambda nx, x: 1.0 + x if not x else nx.tanh(x),
    "or": lambda nx, x: nx.tanh(x or 1.0),
    "in": lambda nx, x: 1.0 + x if x in (0.0,) else nx.tanh(x),
    "a table": lambda nx, x: {0.0: 1.0}.get(x, 0.0) + nx.tanh(x),
    "and": lambda nx, x: nx.where((x > 0) & (x < 1), nx.tanh(x), x),
    "a product": lambda nx, x: (x > 0) * nx.tanh(x),
    "a comparison": lambda nx, x: x > 0,
    "numpy": lambda nx, x: np.tanh(x),
    "numpy's where": lambda nx, x: np.where(x > 0.0, nx.tanh(x), 1.0),
    "an array": lambda nx, x: nx.tanh(x) * np.array([1.0, 2.0]),
    "remainder": lambda nx, x: x % 1.0,
    "power of x": lambda nx, x: 2**x,
    "root": lambda nx, x: x**0.5,
    "float": lambda nx, x: float(x),
    "shape": lambda nx, x: x.shape,
    "item": lambda nx, x: x[0],
    "none": lambda nx, x: None,
    "by zero": lambda nx, x: x / 0.0,
    "zero by zero": lambda nx, x: x + 1.0 / 0.0,
    "unknown": lambda nx, x: nx.bessel(x),
    "math": lambda nx, x: math.tanh(x),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_proves_nothing(case):
    act = record(UNREADABLE[case], name="strange")
    for proof in PROOFS.values():
        with pytest.raises(InputError, match=r"activation 'strange'.*A formula may use numbers"):
            proof(act)
    with pytest.raises(InputError, match="activation 'strange'"):
        act.slope(0.5)  # forward jets take the same road


@pytest.mark.parametrize("case", ["equal", "unequal", "a step equal", "truthy", "not"])
def test_every_arithmetic_refuses_by_itself(case):
    """The reading comes first; behind it no arithmetic decides such a condition either."""
    formula = UNREADABLE[case]
    x = Interval([-1.0, 0.0], [1.0, 0.0])
    assert not continuity(formula).everywhere
    assert continuity(formula).joins == ()
    with pytest.raises(InputError):
        jet(formula, interval_namespace, x, 1)
    if case != "not":
        with pytest.raises(InputError):
            formula(interval_namespace, x)


def test_the_catalogue_is_readable():
    for name in names():
        check_formula(name, get(name).value)


def test_a_plain_condition_is_taken():
    for flag in (True, False, np.True_, np.False_, 1.0 < 2.0):
        # the second choice must still be known to be continuous, in its own place
        act = Activation(
            "own", lambda nx, x, f=flag: nx.where(f, nx.tanh(x), nx.where(x > 0.0, x, 0.0))
        )
        assert act.continuous
        found = act.range_on([-0.5, 0.25], [0.5, 0.5])
        low = [math.tanh(-0.5), math.tanh(0.25)] if flag else [0.0, 0.25]
        np.testing.assert_allclose(found.lower, low, atol=1e-12)
    line = Activation("line", lambda nx, x: nx.where(True, x, 0.0))
    assert line.slopes_on([-1.0], [1.0]).contains(1.0).all()
    assert line.range_on([-1.0], [2.0]).contains(Interval([-1.0], [2.0])).all()
    step = Activation(
        "step", lambda nx, x: nx.where(True, nx.where(x > 0.3, 1.0, 0.0), x) + 0.0 * x
    )
    assert not np.isfinite(step.slopes_on(0.2, 0.4).magnitude)


@pytest.mark.parametrize("formula", [lambda nx, x: 2.0, lambda nx, x: nx.where(True, 2.0, 1.0)])
def test_a_number_is_a_formula(formula):
    act = record(formula, limits=((2.0, 0.0), (2.0, 0.0)))
    assert act.slope_range == (0.0, 0.0)
    found = act.range_on(np.zeros((2, 3)), np.ones((2, 3)))
    assert found.shape == (2, 3)
    assert (found.lower == 2.0).all()


def test_python_abs_and_plus_are_the_namespace_s():
    act = record(lambda nx, x: nx.tanh(+abs(x - 0.25)), limits=((1.0, 0.0), (1.0, 0.0)))
    own = record(lambda nx, x: nx.tanh(nx.abs(x - 0.25)), limits=((1.0, 0.0), (1.0, 0.0)))
    assert act.continuous
    low, high = np.array([-1.0, 0.25, 0.25]), np.array([1.0, 0.25, 0.5])
    for kind in ("range_on", "slopes_on"):
        a, b = (getattr(r, kind)(low, high) for r in (act, own))
        np.testing.assert_array_equal([a.lower, a.upper], [b.lower, b.upper])
    assert act.slopes_on(0.25, 0.25).contains(Interval(-1.0, 1.0))
    nx = jax_namespace()
    import jax.numpy as jnp

    for space, x in ((numpy_namespace, np.array([-1.0, 0.25, 2.0])), (nx, jnp.array([-1.0, 2.0]))):
        for order in (1, 2):
            a, b = (jet(r.value, space, x, order) for r in (act, own))
            np.testing.assert_array_equal(a.d1, b.d1)
            np.testing.assert_array_equal(a.d2, b.d2)


def test_intervals_are_not_equal_or_unequal():
    x, y = Interval(0.0, 1.0), Interval(0.0, 1.0)
    for compare in (lambda: x == y, lambda: x != y, lambda: x == 0.0, lambda: np.zeros(2) == x):
        with pytest.raises(InputError, match="== or !="):
            compare()
    assert len({x, y}) == 2


# -- claims that are not believed ------------------------------------------------------------


def test_a_pole_hides_no_jump():
    act = record(
        lambda nx, x: nx.where(x > 0.3, 1.0, 0.0) + 0.0 * x,
        poles=(0.3,),
        limits=((0.0, 0.0), (1.0, 0.0)),
    )
    assert act.slope_range[1] == math.inf
    with pytest.raises(InputError, match="no bounded slope"):
        lipschitz_bound(network(act), attack=False)
    for low, high in ((0.2, 0.4), (0.3, 0.4), (0.2, 0.3), (0.3, 0.3)):
        for ask in (act.slopes_on, act.range_on, act.relaxation):
            with pytest.raises(InputError, match="leaves the domain"):
                ask(low, high)


def test_the_catalogue_s_pole_has_no_bounded_slope():
    low, high = get("reciprocal").slope_range
    assert low == -math.inf
    assert high >= 0.0


@pytest.mark.parametrize("slope", [0.0, 7.0, -3.0])
@pytest.mark.parametrize("method", ["interval", "crown"])
def test_a_claimed_derivative_bounds_no_jacobian(slope, method):
    act = record(tanh, derivative=lambda nx, x: 0.0 * x + slope)
    found = jacobian_bounds(network(act), box(-0.5, 0.5), method=method)
    least, most = 1.0 - math.tanh(0.5) ** 2, 1.0  # of 1 - tanh^2
    assert np.ravel(found.lower)[0] <= least
    assert np.ravel(found.upper)[0] >= most
    assert np.ravel(found.lower)[0] > 0.0
    assert np.ravel(found.upper)[0] < 1.5
    local = local_lipschitz(network(act), box(-0.5, 0.5))
    assert np.ravel(local.upper)[0] >= 1.0


# -- names -----------------------------------------------------------------------------------


def test_a_users_identity_stays_in_the_graph():
    act = record(tanh, name="identity")
    x = np.array([[1.0], [-2.0]])
    np.testing.assert_allclose(network(act).evaluate(x), np.tanh(x), rtol=1e-15)
    assert len(network(get("identity")).structure.nodes) < len(network(act).structure.nodes)


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_a_users_relu_is_bounded_by_its_formula(name):
    claims = {"params": (("negative_slope", 0.01),)} if name == "leaky_relu" else {}
    act = record(tanh, name=name, **claims)
    for method in ("ibp", "crown"):
        found = bound(network(act), box(-1.0, 2.0), method=method)
        assert np.ravel(found.lower)[0] <= math.tanh(-1.0)
        assert np.ravel(found.upper)[0] >= math.tanh(2.0)


@pytest.mark.parametrize("module", ["tightness", "training", "planes", "steps"])
def test_rules_for_relu_ask_whose_it_is(module):
    from tangency.models import UnsupportedError
    from tangency.models.ops import Activate
    from tangency.verify.bounds.search.intervals import cheap
    from tangency.verify.bounds.search.planes import rectifier
    from tangency.verify.tightness.pieces import _slope
    from tangency.verify.training.backward import _negative_slope

    own, relu = record(tanh, name="relu"), get("relu")
    if module == "tightness":
        assert _slope("layer", Activate(relu), {}, 1) == 0.0
        with pytest.raises(UnsupportedError):
            _slope("layer", Activate(own), {}, 1)
    elif module == "training":
        assert (_negative_slope(relu), _negative_slope(own)) == (0.0, None)
    elif module == "planes":
        assert (rectifier(relu), rectifier(own)) == (True, False)
    else:
        assert (cheap(Activate(relu)), cheap(Activate(own))) == (True, False)


def test_a_name_of_the_catalogue_is_never_registered_again():
    def leaky_relu(negative_slope: float = 0.01) -> Activation:
        made = get_leaky(negative_slope=0.01)
        return made if negative_slope == 0.01 else Activation("leaky_relu", tanh)

    def get_leaky(**given):
        return get("leaky_relu", **given)

    before = network(get("leaky_relu", negative_slope=0.2)).hash
    for entry in (leaky_relu, get("relu"), Activation("relu", tanh)):
        with pytest.raises(InputError, match="taken"):
            register(entry)
    assert network(get("leaky_relu", negative_slope=0.2)).hash == before


# -- formulas that change, and domains -------------------------------------------------------


@pytest.mark.parametrize("first", ["hash", *PROOFS])
def test_a_formula_that_changes_is_refused(first):
    k = [1.0]
    act = record(lambda nx, x: nx.tanh(k[0] * x))
    old = network(act)
    _ = old.hash if first == "hash" else PROOFS[first](act)
    k[0] = 3.0
    for use in (
        *PROOFS.values(),
        lambda act: network(act).hash,
        lambda act: old.hash,
        lambda act: act.digest,
    ):
        with pytest.raises(InputError, match="has changed since"):
            use(act)
    fresh = record(lambda nx, x: nx.tanh(k[0] * x))
    assert fresh.slopes_on(0.0, 0.0).contains(3.0)
    assert network(fresh).hash != network(record(lambda nx, x: nx.tanh(1.0 * x))).hash


def test_a_domain_bounds_no_network_that_leaves_it():
    e = math.e
    ends = ((Interval(0.36, 0.37),) * 2, (Interval(2.71, 2.72),) * 2)
    act = record(lambda nx, x: nx.exp(x), domain=(-1.0, 1.0), limits=ends)
    for method in ("lipsdp", "product"):
        with pytest.raises(InputError, match=r"defined on \[-1, 1\] alone.*give box="):
            lipschitz_bound(network(act), method=method, attack=False)
    inside = Box(np.array([-0.5]), np.array([0.5]))
    found = lipschitz_bound(network(act), box=inside, attack=False)
    assert math.exp(0.5) <= float(found.upper) < e
