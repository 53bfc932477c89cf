"""from_torch: clean graphs that agree with torch, and one clear error for what cannot be read."""

import numpy as np
import pytest

from tangency.models import InputError, Network, UnsupportedError, from_torch

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

ONE_OPS = (
    *("relu leaky_relu sigmoid tanh gelu_tanh silu softsign logsigmoid exp log sin cos").split(),
    *("tan atan sqrt abs square cube reciprocal sign floor gelu erf elu selu celu").split(),
    *("softplus mish hardtanh relu6 clamp hardswish hardsigmoid glu softmax").split(),
    *("log_softmax logsumexp mean norm max where sort mul div maximum minimum maxmin").split(),
    *("layer_norm attention batch_norm lstm_cell prelu einsum").split(),
    *("scaled_dot_product_attention multihead_attention group_norm max_pool1d").split(),
    *("avg_pool1d conv_transpose1d").split(),
)


class Function(nn.Module):
    def __init__(self, function, *layers):
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, *x):
        return self.function(*self.layers, *x)


def kinds(network):
    return [node.op.kind for node in network.structure.nodes]


def agrees(network, module, *shape, rtol=1e-5):
    """The compiled evaluation gives torch's outputs."""
    x = np.random.default_rng(1).standard_normal((3, *shape)).astype(network.dtype)
    with torch.no_grad():
        want = module(torch.from_numpy(x.copy())).numpy()
    got = np.asarray(network(x))
    assert np.abs(got - want).max() <= rtol * np.abs(want).max()
    return True


# --- the coverage table ------------------------------------------------------------------------


def test_the_list_is_complete(one_op_modules):
    assert sorted(one_op_modules) == sorted(ONE_OPS)
    assert len(ONE_OPS) == 59


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ONE_OPS)
def test_one_op_imports(one_op_modules, name, dtype):
    module, shape = one_op_modules[name]
    kind = getattr(torch, dtype)
    network = from_torch(module.to(kind), torch.zeros(2, *shape, dtype=kind))  # checks itself
    assert network.dtype == dtype
    assert network.input_shape == shape


@pytest.mark.parametrize("name", ["gelu", "lstm_cell", "multihead_attention", "conv_transpose1d"])
def test_one_op_in_jax(one_op_modules, name):
    module, shape = one_op_modules[name]
    network = from_torch(module.float(), torch.zeros(1, *shape))
    assert agrees(network, module, *shape)


# --- clean graphs ------------------------------------------------------------------------------


def test_mlp_is_dense_and_activation_alone():
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    network = from_torch(module, torch.zeros(7, 4))
    assert kinds(network) == ["input", "dense", "activation", "dense"]
    assert [n.name for n in network.structure.nodes] == ["input", "0", "1", "3"]
    assert set(network.weights) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert network.structure.trainable == ("0.weight", "0.bias", "3.weight", "3.bias")
    assert network.source == "Sequential"
    assert module.training  # the user's module is as it was


def test_cnn_is_conv_activation_pool_reshape_dense():
    module = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)),
    )
    network = from_torch(module, np.zeros((2, 1, 8, 8), np.float32))
    assert kinds(network) == [
        *("input", "conv", "batch_norm", "activation", "max_pool", "reshape", "dense")
    ]
    assert "1.running_mean" not in network.structure.trainable
    assert {"1.running_mean", "1.running_var", "1.weight"} <= set(network.weights)
    assert agrees(network, module.eval(), 1, 8, 8)


def test_flattened_input_costs_one_reshape():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    assert kinds(from_torch(module, torch.zeros(1, 1, 4, 4))) == ["input", "reshape", "dense"]


def test_tied_weights_are_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    network = from_torch(Tied(), torch.zeros(1, 4))
    assert set(network.weights) == {"a.weight", "a.bias", "b.bias"}


def test_parametrised_weights_are_computed_once():
    module = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)).eval()
    network = from_torch(module, torch.zeros(1, 4))
    assert kinds(network) == ["input", "dense"]
    weight = next(p.key for p in network.structure.nodes[1].params if p.role == "weight")
    np.testing.assert_allclose(network.weights[weight], module.weight.detach().numpy(), rtol=1e-6)
    assert weight in network.structure.trainable


def test_a_weight_on_the_right_says_that_it_is_turned():
    class Right(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return x @ self.w

    assert set(from_torch(Right(), torch.zeros(1, 4)).weights) == {"w.T"}


MAXMIN = {
    "sort": lambda x: torch.sort(x.view(x.shape[0], -1, 2), -1, descending=True)[0].flatten(1),
    "amax": lambda x: torch.stack(
        (x.view(x.shape[0], -1, 2).amax(-1), x.view(x.shape[0], -1, 2).amin(-1)), -1
    ).flatten(1),
    "select": lambda x: torch.stack(
        (torch.maximum(x[:, ::2], x[:, 1::2]), torch.minimum(x[:, ::2], x[:, 1::2])), 2
    ).reshape(x.shape),
    "cat": lambda x: torch.cat(
        [f(x.reshape(-1, 3, 2), dim=2, keepdim=True)[0] for f in (torch.max, torch.min)], 2
    ).reshape(x.shape),
}


@pytest.mark.parametrize("name", list(MAXMIN))
def test_maxmin_by_hand_is_one_node(name):
    module = Function(lambda layer, x: MAXMIN[name](layer(x)), nn.Linear(4, 6))
    network = from_torch(module, torch.zeros(1, 4))
    assert kinds(network) == ["input", "dense", "group_sort"]
    assert network.structure.nodes[2].op.descending


def test_maxmin_over_channels():
    def maxmin(x):  # the halves of the channels
        a, b = x.chunk(2, dim=1)
        return torch.cat((torch.maximum(a, b), torch.minimum(a, b)), dim=1)

    module = Function(lambda conv, x: maxmin(conv(x)), nn.Conv2d(1, 4, 3))
    network = from_torch(module, torch.zeros(1, 1, 5, 5))
    assert kinds(network) == ["input", "conv", "reshape", "group_sort", "reshape"]


# --- whole models ------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding="same", groups=2)

    def forward(self, x):
        out = self.conv2(self.relu(self.bn1(self.conv1(x))))
        out += x
        return self.relu(out)


def test_resnet_block():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = from_torch(module, torch.zeros(2, 3, 6, 6))
    assert "1.conv1" in [n.name for n in network.structure.nodes]
    assert agrees(network, module.eval(), 3, 6, 6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_layer(norm_first):
    module = nn.TransformerEncoderLayer(
        *(8, 2, 16), batch_first=True, norm_first=norm_first, activation="gelu"
    )
    network = from_torch(module, torch.zeros(2, 3, 8))
    assert agrees(network, module.eval(), 3, 8)


def test_transformer_encoder_with_causal_mask():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    module = Function(lambda e, x: e(x, mask=mask, is_causal=True), encoder)
    assert from_torch(module.double(), torch.zeros(1, 4, 8, dtype=torch.float64))


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention(batch_first):
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    module = Function(lambda a, x: a(x, x, x), attention)  # the weights too: two outputs
    axis = 0 if batch_first else 1
    if batch_first:
        network = from_torch(module, torch.zeros(2, 3, 8))
        assert network.output_shapes == ((3, 8), (3, 3))
    else:
        module = Function(lambda a, x: a(x, x, x, need_weights=False)[0], attention)
        network = from_torch(module, torch.zeros(3, 2, 8), batch_axis=axis)
        assert network.output_shape == (3, 8)


MASKS = {
    "bool": {"attn_mask": torch.tensor([[True, False, True], [True] * 3, [False, False, True]])},
    "float": {"attn_mask": torch.tensor([[0.0, 0.3, -1.0]] * 3)},
    "minus infinity": {"attn_mask": torch.full((3, 3), float("-inf")).triu(1)},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
}


@pytest.mark.parametrize("name", list(MASKS))
def test_attention_with_masks(name):
    module = Function(
        lambda q, k, v, x: F.scaled_dot_product_attention(
            *(f(x).view(-1, 3, 2, 4).transpose(1, 2) for f in (q, k, v)), **MASKS[name]
        ),
        *(nn.Linear(8, 8) for _ in range(3)),
    )
    assert from_torch(module, torch.zeros(2, 3, 8)).output_shape == (2, 3, 4)


def test_a_mask_that_allows_nothing_is_refused():
    mask = torch.zeros(3, 3, dtype=torch.bool)
    module = Function(
        lambda q, x: F.scaled_dot_product_attention(q(x), x, x, mask), nn.Linear(4, 4)
    )
    with pytest.raises(UnsupportedError, match="allows nothing"):
        from_torch(module, torch.zeros(1, 3, 4))


RNNS = [
    (nn.LSTM, {"num_layers": 2}),
    (nn.LSTM, {"bidirectional": True}),
    (nn.GRU, {"bidirectional": True, "num_layers": 2}),
    (nn.GRU, {"bias": False}),
    (nn.RNN, {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize(("kind", "options"), RNNS)
def test_recurrent_layers_unrolled(kind, options):
    module = Function(lambda rnn, x: rnn(x)[0], kind(3, 4, batch_first=True, **options))
    network = from_torch(module.double(), torch.zeros(2, 5, 3, dtype=torch.float64))
    assert network.output_shape[0] == 5


def test_recurrent_layer_with_time_in_front_and_a_state():
    module = Function(lambda rnn, x, h: rnn(x, (h, h))[0], nn.LSTM(3, 4))
    network = from_torch(module, (torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)), batch_axis=1)
    assert network.input_shapes == ((5, 3), (1, 4))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_with_a_state(kind):
    takes = (lambda c, x, h: c(x, (h, h))[1]) if kind is nn.LSTMCell else (lambda c, x, h: c(x, h))
    module = Function(takes, kind(3, 4))
    network = from_torch(module, (torch.zeros(2, 3), torch.zeros(2, 4)))
    assert network.input_shapes == ((3,), (4,))


def test_one_sample_without_a_batch_axis():
    network = from_torch(nn.LSTM(3, 4), torch.zeros(5, 3), batch_axis=None)
    assert network.output_shapes == ((5, 4), (1, 4), (1, 4))


def test_exported_program():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).eval()
    program = torch.export.export(module, (torch.zeros(1, 3),), strict=False)
    network = from_torch(program)
    assert kinds(network) == ["input", "dense", "activation"]
    assert network == from_torch(module, torch.zeros(1, 3))


def test_exported_program_with_a_dynamic_batch():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).eval()
    dims = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.zeros(4, 3),), dynamic_shapes=dims, strict=False)
    assert from_torch(program) == from_torch(module, torch.zeros(1, 3))


def test_several_outputs_in_a_dictionary():
    module = Function(
        lambda f, x: {"logits": f(x), "hidden": (torch.relu(x), None)}, nn.Linear(3, 2)
    )
    assert from_torch(module, torch.zeros(1, 3)).output_shapes == ((2,), (3,))


# --- what is refused ---------------------------------------------------------------------------


def test_unknown_op_names_op_layer_and_what_is_read():
    module = nn.Sequential(nn.Linear(3, 3), Function(torch.special.bessel_j0))
    with pytest.raises(UnsupportedError, match=r"layer '1': aten.special_bessel_j0.*Read are"):
        from_torch(module, torch.zeros(1, 3))


def test_control_flow_on_data():
    module = Function(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(UnsupportedError, match="control flow depends on the data"):
        from_torch(module, torch.zeros(1, 3))


def mixes(x):
    return x - x.mean(0)


class ForcedTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        self.norm.train()
        return self.norm(x)


def test_models_that_mix_their_batch():
    with pytest.raises(UnsupportedError, match="mixes its samples"):
        from_torch(Function(mixes), torch.zeros(2, 3))
    with pytest.raises(UnsupportedError, match="training mode"):
        from_torch(ForcedTraining(), torch.zeros(2, 2, 4, 4))
    with pytest.raises(UnsupportedError, match="not the batch"):
        from_torch(Function(torch.sum), torch.zeros(2, 3))
    with pytest.raises(UnsupportedError, match="the batch is not the axis"):
        from_torch(nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3))  # (layers, batch, hidden)


def test_examples_that_do_not_fit():
    module = nn.Linear(3, 2)
    with pytest.raises(InputError, match=r"does not take one sample.*\(1, 4\)"):
        from_torch(module, torch.zeros(2, 4))
    with pytest.raises(InputError, match="the example is int64"):
        from_torch(module, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="the example is float16"):
        from_torch(module, torch.zeros(2, 3, dtype=torch.float16))
    with pytest.raises(InputError, match="float64 and 'weight' of the model float32"):
        from_torch(module, np.zeros((2, 3)))
    with pytest.raises(InputError, match="no entries"):
        from_torch(module, torch.zeros(0, 3))
    with pytest.raises(InputError, match="a NoneType"):
        from_torch(module, None)
    with pytest.raises(InputError, match=r"batches of \[1, 2\]"):
        from_torch(module, (torch.zeros(2, 3), torch.zeros(1, 3)))
    with pytest.raises(InputError, match="no batch axis 2"):
        from_torch(module, torch.zeros(2, 3), batch_axis=2)


@pytest.mark.parametrize("what", [None, 3, np.eye(2), nn.Linear, lambda x: x])
def test_what_is_not_a_module(what):
    with pytest.raises(InputError, match=r"takes a torch.nn.Module"):
        from_torch(what, torch.zeros(1, 3))


def test_lazy_weight():
    with pytest.raises(InputError, match="'weight' is not initialised"):
        from_torch(nn.LazyLinear(3), torch.zeros(1, 3))


def test_nan_weight():
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="'weight' has a NaN"):
        from_torch(module, torch.zeros(1, 3))


def sliced(x):
    y = x * 2
    y[:, 0] = 0
    return y


REFUSED = {
    "computes in float64": lambda x: x.double().float(),
    "writes in place on a part": sliced,
    "indices of max": lambda x: x.max(1),
    "indices of sort": lambda x: torch.sort(x, 1)[1].float(),
    "threshold 2 is too low": lambda x: F.softplus(x, threshold=2.0),
    "is random": lambda x: x + torch.randn(3),
    "returns a condition": lambda x: x > 0,
    "dropout is in training mode": lambda x: F.dropout(x, 0.3, training=True),
    "does not depend on any input": lambda x: torch.zeros(1, 3),
}


@pytest.mark.parametrize("message", list(REFUSED))
def test_refused(message):
    with pytest.raises(UnsupportedError, match=message):
        from_torch(Function(REFUSED[message]), torch.zeros(1, 3))


def test_the_check_can_be_left_out():
    assert isinstance(from_torch(Function(mixes), torch.zeros(2, 3), check=False), Network)
