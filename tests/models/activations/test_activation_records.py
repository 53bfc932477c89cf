"""The registry, records made by users, cards, pictures, group activations."""

import pytest

from tangency.models.activations import Activation, get, names, register
from tangency.models.activations.card import card
from tangency.models.activations.groups import GROUP_ACTIVATIONS, get_group
from tangency.models.activations.plot import plot
from tangency.models.errors import InputError


def test_activation_names_near_miss():
    with pytest.raises(InputError, match=r"'rellu'; near names: .*relu"):
        get("rellu")
    with pytest.raises(InputError, match=r"no parameter 'slope'; it has: negative_slope"):
        get("leaky_relu", slope=0.1)
    with pytest.raises(InputError, match="has: none"):
        get("relu", a=1)


def test_activation_records_are_values():
    assert get("relu") is get("relu")
    assert get("leaky_relu", negative_slope=0.01) == get("leaky_relu")
    assert hash(get("elu", alpha=2)) == hash(get("elu", alpha=2.0))
    assert get("elu", alpha=2) != get("elu")
    assert get("atan") == get("arctan")
    assert str(get("elu", alpha=2)) == "elu(alpha=2)"
    with pytest.raises(AttributeError):
        get("relu").name = "other"
    record = get("leaky_relu", negative_slope=0.3)
    assert get(record.name, **dict(record.params)) == record


def test_activation_params_rebuild_every_record():
    for name in names():
        record = get(name)
        assert get(name, **dict(record.params)) == record


def test_activation_register():
    mine = Activation("my_own_activation", lambda nx, x: nx.tanh(x) + 0.1 * x)
    register(mine)
    register(mine)  # the same again is no conflict
    assert get("my_own_activation") is mine
    with pytest.raises(InputError, match="taken"):
        register(Activation("relu", lambda nx, x: x, params=(("a", 1.0),)))


def test_activation_bad_parameters():
    with pytest.raises(InputError, match="min < max"):
        get("clip", min=1.0, max=0.0)
    with pytest.raises(InputError, match="integer"):
        get("power", n=0.5)
    with pytest.raises(InputError, match="coefficients"):
        get("kan_edge", coefficients=(1.0,))


@pytest.mark.parametrize("name", names())
def test_activation_card_and_plot(name):
    text = str(card(get(name)))
    assert get(name).formula
    assert name in text
    assert "slopes" in text
    axes = plot(get(name)).axes[0]
    assert axes.get_xlabel() == "x"


def test_activation_card_without_limits():
    text = str(card(Activation("bare", lambda nx, x: nx.tanh(x))))
    assert "no limits" in text
    assert "0.3943" in text


def test_activation_groups():
    assert get_group("softmax").lipschitz == 0.5
    assert [g.name for g in GROUP_ACTIVATIONS] == sorted(g.name for g in GROUP_ACTIVATIONS)
    with pytest.raises(InputError, match="maxmin"):
        get_group("minmax")
