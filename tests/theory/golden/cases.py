"""The architectures whose kernels are compared: written once, built in either library.

``build(L)`` takes a namespace of layers: tangency.theory.kernels, or make.py's adapter of
neural_tangents.stax.
"""

import numpy as np


def inputs(kind):
    """Two small batches: vectors, a row of sites, or images."""
    rng = np.random.default_rng({"vectors": 0, "row": 1, "images": 2, "wide": 3}[kind])
    shape = {"vectors": (6,), "row": (5, 3), "images": (5, 4, 2), "wide": (4, 4, 3)}[kind]
    return rng.normal(size=(4, *shape)), rng.normal(size=(3, *shape))


def _mlp(*activations, W_std=1.4, b_std=0.3):
    def build(L):
        layers = [L.Dense(7, W_std, b_std)]
        for name, *options in activations:
            layers += [getattr(L, name)(*options), L.Dense(5, W_std, b_std)]
        return L.serial(*layers)

    return build


def _cnn(*end, size=(3, 3), stride=None, padding="SAME", dilation=None):
    def build(L):
        options = {"stride": stride, "padding": padding, "W_std": 1.3, "b_std": 0.2}
        return L.serial(
            L.Conv(6, size, **options),
            L.Relu(),
            L.Conv(4, size, padding=padding, W_std=1.1, b_std=0.1),
            L.Relu(),
            *(getattr(L, name)(*args) for name, *args in end),
            L.Dense(1, 1.2, 0.5),
        )

    return build


def _resnet(L):
    block = L.serial(L.Relu(), L.Conv(6, (3, 3), W_std=1.2), L.Relu(), L.Conv(6, (3, 3), b_std=0.1))
    down = L.parallel(
        L.serial(L.Relu(), L.Conv(6, (3, 3), stride=(2, 2))),
        L.Conv(6, (1, 1), stride=(2, 2)),
    )
    return L.serial(
        L.Conv(6, (3, 3)), L.residual(block), down, L.residual(block), L.GlobalAvgPool(), L.Dense(1)
    )


def _dense_residual(L):
    block = L.serial(L.Erf(), L.Dense(9, 1.1, 0.2))
    return L.serial(
        L.Dense(9, 1.3, 0.1), L.residual(block), L.residual(block), L.Relu(), L.Dense(1)
    )


def _concat(L):
    branch = [L.serial(L.Dense(n, 1.2, 0.1), L.Relu()) for n in (4, 12)]
    return L.serial(L.concat(*branch), L.Dense(3, 1.1, 0.2), L.Gelu(), L.Dense(1))


def _product(L):
    branch = [
        L.serial(L.Dense(8, 1.2, 0.1), L.Relu()),
        L.serial(L.Dense(8, 0.9, 0.4), L.Erf(), L.Dense(8, 1.0, 0.1)),
    ]
    return L.serial(L.product(*branch), L.Dense(3, 1.1, 0.2), L.Relu(), L.Dense(1))


def _product_images(L):
    branch = [L.serial(L.Conv(8, (3, 3), W_std=w, b_std=0.1), L.Relu()) for w in (1.0, 1.4)]
    return L.serial(L.product(*branch), L.Conv(8, (3, 3)), L.Relu(), L.GlobalAvgPool(), L.Dense(1))


def _norm(*axes, spatial):
    def build(L):
        end = [L.GlobalAvgPool()] if spatial == "pool" else [L.Flatten()] if spatial else []
        first = L.Conv(5, (3, 3), W_std=1.5, b_std=0.4) if spatial else L.Dense(5, 1.5, 0.4)
        return L.serial(first, L.LayerNorm(axes, 1e-5), L.Relu(), *end, L.Dense(1, 1.1, 0.1))

    return build


def _dropout(L):
    return L.serial(
        L.Dense(5, 1.4, 0.2), L.Relu(), L.Dropout(0.7), L.Dense(5, 1.4, 0.2), L.Erf(), L.Dense(1)
    )


def _dropout_images(L):
    return L.serial(
        L.Conv(5, (3, 3), b_std=0.2), L.Relu(), L.Dropout(0.6), L.Conv(4, (3, 3)), L.Relu(),
        L.GlobalAvgPool(), L.Dense(1),
    )  # fmt: skip


def _attention(**options):
    def build(L):
        return L.serial(
            L.Conv(6, (3,), b_std=0.2),
            L.Relu(),
            L.Attention(5, 1.1, 1.2, 0.9, 1.3, 0.2, **options),
            L.Relu(),
            L.GlobalAvgPool(),
            L.Dense(1),
        )

    return build


def _attention_first(L):
    return L.serial(L.Attention(5, mechanism="abs"), L.Relu(), L.Flatten(), L.Dense(1, 1.0, 0.3))


#: name: (inputs, parametrisation, build)
CASES = {
    "relu": ("vectors", "ntk", _mlp(("Relu",), ("Relu",), ("Relu",))),
    "relu_standard": ("vectors", "standard", _mlp(("Relu",), ("Relu",))),
    "relu_without_bias": ("vectors", "ntk", _mlp(("Relu",), ("Relu",), b_std=None)),
    "erf": ("vectors", "ntk", _mlp(("Erf", 1.2, 0.8, 0.3), ("Erf",))),
    "sigmoid_like": ("vectors", "ntk", _mlp(("Sigmoid_like",))),
    "gelu": ("vectors", "ntk", _mlp(("Gelu",), ("Gelu",))),
    "leaky_relu": ("vectors", "ntk", _mlp(("LeakyRelu", 0.2), ("ABRelu", -0.3, 1.1))),
    "abs": ("vectors", "ntk", _mlp(("Abs",), ("Abs",))),
    "sin_cos": ("vectors", "ntk", _mlp(("Sin", 1.1, 0.9, 0.4), ("Cos", 0.8, 1.2, 0.1))),
    "rbf": ("vectors", "ntk", _mlp(("Rbf", 0.7), ("Rbf", 1.0))),
    "exp": ("vectors", "ntk", _mlp(("Exp", 0.7, 0.5), W_std=0.8)),
    "gaussian": ("vectors", "ntk", _mlp(("Gaussian", 1.3, -0.6), ("Gaussian",))),
    "gabor": ("vectors", "ntk", _mlp(("Gabor",))),
    "exp_normalized": ("vectors", "ntk", _mlp(("ExpNormalized", 0.9, -0.8), ("ExpNormalized",))),
    "monomial_2": ("vectors", "ntk", _mlp(("Monomial", 2))),
    "monomial_3": ("vectors", "ntk", _mlp(("Monomial", 3))),
    "monomial_5": ("vectors", "ntk", _mlp(("Monomial", 5), W_std=0.9)),
    "polynomial": ("vectors", "ntk", _mlp(("Polynomial", (0.2, 0.7, -0.4, 0.1)))),
    "rectified_monomial_1": ("vectors", "ntk", _mlp(("RectifiedMonomial", 1))),
    "rectified_monomial_2": ("vectors", "ntk", _mlp(("RectifiedMonomial", 2))),
    "sign": ("vectors", "ntk", _mlp(("Sign",))),
    "sign_of_sign": ("vectors", "ntk", _mlp(("Sign",), ("Sign",))),
    "dense_residual": ("vectors", "ntk", _dense_residual),
    "concat": ("vectors", "ntk", _concat),
    "product": ("vectors", "ntk", _product),
    "dropout": ("vectors", "ntk", _dropout),
    "layer_norm": ("vectors", "ntk", _norm(spatial=None)),
    "conv_pool": ("images", "ntk", _cnn(("GlobalAvgPool",))),
    "conv_flatten": ("images", "ntk", _cnn(("Flatten",))),
    "conv_standard": ("images", "standard", _cnn(("GlobalAvgPool",))),
    "conv_valid": ("images", "ntk", _cnn(("GlobalAvgPool",), size=(2, 2), padding="VALID")),
    "conv_stride": ("images", "ntk", _cnn(("GlobalAvgPool",), stride=(2, 2))),
    "conv_circular": (
        "images", "ntk", _cnn(("GlobalAvgPool",), size=(3, 2), stride=(1, 2), padding="CIRCULAR")
    ),
    "conv_circular_flatten": ("images", "ntk", _cnn(("Flatten",), padding="CIRCULAR")),
    "avg_pool": ("images", "ntk", _cnn(("AvgPool", (2, 2), (2, 2)), ("Flatten",))),
    "avg_pool_same": (
        "images", "ntk", _cnn(("AvgPool", (3, 2), (2, 1), "SAME", True), ("GlobalAvgPool",))
    ),
    "resnet": ("wide", "ntk", _resnet),
    "product_images": ("wide", "ntk", _product_images),
    "dropout_images": ("wide", "ntk", _dropout_images),
    "layer_norm_images": ("images", "ntk", _norm(spatial="pool")),
    "layer_norm_sites": ("images", "ntk", _norm(0, 1, spatial="pool")),
    "layer_norm_axis": ("images", "ntk", _norm(1, spatial="flatten")),
    "attention": ("row", "ntk", _attention()),
    "attention_identity": ("row", "ntk", _attention(mechanism="identity")),
    "attention_sum": ("row", "ntk", _attention(position="sum", position_std=0.6)),
    "attention_concat": (
        "row",
        "ntk",
        _attention(position="concat", position_in_values=True, mechanism="relu"),
    ),
    "attention_first": ("row", "ntk", _attention_first),
}  # fmt: skip
