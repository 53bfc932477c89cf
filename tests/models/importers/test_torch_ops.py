"""Every reader of an ATen op, in float64 to 1e-12 of torch (from_torch checks itself)."""

import pytest

from tangency.models import UnsupportedError, from_torch

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

C4 = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
M44 = torch.arange(16.0, dtype=torch.float64).view(4, 4) / 8 - 1
BOOL4 = torch.tensor([True, False, True, True])


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


VECTOR = {  # of x (N, 4)
    **{
        f"torch.{name}": getattr(torch, name)
        for name in (
            *("abs expm1 log1p rsqrt asinh asin acos atanh sinh cosh ceil round neg sgn").split(),
            *("log2 log10 exp2 square reciprocal selu celu relu").split(),
        )
    },
    "F.softsign": F.softsign,
    "F.tanhshrink": F.tanhshrink,
    "F.softshrink": lambda x: F.softshrink(x, 0.3),
    "F.hardshrink": lambda x: F.hardshrink(x, 0.3),
    "F.threshold": lambda x: F.threshold(x, 0.1, -2.0),
    "F.softplus beta": lambda x: F.softplus(x, beta=2.0),
    "F.rrelu": F.rrelu,
    "F.relu6 as hardtanh": lambda x: F.hardtanh(8 * x, 0.0, 6.0),
    "swish by hand": lambda x: x * torch.sigmoid(x),
    "F.prelu one slope": lambda x: F.prelu(x, C4[:1]),
    "x + x": lambda x: x + x,
    "x * x": lambda x: x * x,
    "1 - x": lambda x: 1 - x,
    "const - x": lambda x: C4 - x,
    "x - const": lambda x: x - C4,
    "2 / x": lambda x: 2 / x,
    "const / x": lambda x: C4 / x,
    "x / const": lambda x: x / C4,
    "x / 3": lambda x: x / 3,
    "-x": lambda x: -x,
    "alpha": lambda x: torch.add(x, x.exp(), alpha=0.3) - torch.sub(C4, x, alpha=2),
    "rsub": lambda x: torch.rsub(x, 3.0, alpha=2),
    "floor of a quotient": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "addcmul": lambda x: torch.addcmul(x, x.exp(), C4, value=0.4),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.exp(), value=0.4),
    "lerp": lambda x: torch.lerp(x, C4, 0.3),
    "broadcast add": lambda x: x.unsqueeze(1) + x.unsqueeze(2),
    "broadcast with a constant": lambda x: x.unsqueeze(1) * M44 + M44,
    "broadcast const column": lambda x: x.unsqueeze(2) - C4,
    "x ** 2": lambda x: x**2,
    "x ** 3": lambda x: x**3,
    "x ** 5": lambda x: x**5,
    "x ** -1": lambda x: x**-1,
    "x ** -2": lambda x: x**-2,
    "x ** 0.5": lambda x: x**0.5,
    "x ** -0.5": lambda x: x**-0.5,
    "2 ** x": lambda x: 2**x,
    "clamp min": lambda x: x.clamp(min=0.2),
    "clamp min 0": lambda x: x.clamp(min=0),
    "clamp max": lambda x: x.clamp(max=0.2),
    "clamp tensors": lambda x: torch.clamp(x, min=C4 - 1, max=C4 + 1),
    "maximum with a constant": lambda x: torch.maximum(x, C4),
    "minimum with a scalar": lambda x: torch.minimum(torch.tensor(0.1).double(), x),
    "max of two": lambda x: torch.max(x, x.flip(1)),
    "where lt": lambda x: torch.where(x < 0.3, x, C4),
    "where ge broadcast": lambda x: torch.where(x >= x.mean(1, keepdim=True), x, 0.0),
    "where and": lambda x: torch.where((x > -0.5) & (x <= 0.5), x, 2 * x),
    "where or not": lambda x: torch.where((x > 0.5) | ~(x > -0.5), x, 2 * x),
    "where logical": lambda x: torch.where(
        torch.logical_not(torch.logical_and(x > 0, x < 1)), x, 3.0
    ),
    "where eq": lambda x: torch.where(x.round() == 0, x, 2.0),
    "where ne": lambda x: torch.where(x.round() != 0, x, 2.0),
    "where constant mask": lambda x: torch.where(BOOL4, x, C4),
    "where constant mask of two": lambda x: torch.where(BOOL4, x, x.exp()),
    "where mask and condition": lambda x: torch.where(BOOL4 & (x > 0), x, 0.5),
    "mask times x": lambda x: x * (x > 0),
    "mask as float": lambda x: (x > 0).double() + x,
    "mask as dtype of": lambda x: (x > 0).type_as(x),
    "mask seen otherwise": lambda x: torch.where(
        (x > 0).unsqueeze(1).expand(-1, 2, 4), 1.0, x[:, None]
    ),
    "masked_fill": lambda x: x.masked_fill(~BOOL4, 0.7),
    "masked_fill -inf": lambda x: torch.softmax(x.masked_fill(~BOOL4, float("-inf")), 1),
    "masked_fill by a condition": lambda x: x.masked_fill(x < 0, 0.7),
    "zeros_like": lambda x: torch.where(x > 0, x, torch.zeros_like(x)) + torch.full_like(x, 0.3),
    "in place": lambda x: x.mul(2).add_(1).relu_(),
    "in place then used": lambda x: (lambda y: y.relu_() + y)(x * 2),
    "in place through a view": lambda x: (lambda y: (y.view(-1, 2, 2).relu_(), y + 1)[1])(x * 2),
    "in place by a constant": lambda x: (
        x + torch.zeros(4).double().index_fill_(0, torch.tensor(1), 3)
    ),
    "no_grad": lambda x: _no_grad(x),
    "x @ const": lambda x: x @ M44,
    "const @ x": lambda x: M44 @ x.unsqueeze(-1),
    "const @ vector": lambda x: (M44 @ x.view(4)).unsqueeze(0),
    "vector @ const": lambda x: (x.view(4) @ M44).unsqueeze(0),
    "x @ const vector": lambda x: x @ C4,
    "const batch @ x": lambda x: M44.view(2, 2, 4) @ x.view(-1, 1, 4, 1),
    "mm, bmm": lambda x: torch.bmm(x.view(-1, 2, 2), x.exp().view(-1, 2, 2)),
    "addmm": lambda x: torch.addmm(C4, x, M44),
    "addmm alpha": lambda x: torch.addmm(C4, x, M44, beta=0.5, alpha=2.0),
    "baddbmm": lambda x: torch.baddbmm(M44[:2, :2], x.view(-1, 2, 2), x.exp().view(-1, 2, 2)),
    "linear 3-d": lambda x: F.linear(x.view(-1, 2, 2), M44[:3, :2], C4[:3]),
    "dot": lambda x: torch.dot(x.view(4), C4).view(1, 1) + torch.dot(x.view(4), x.view(4)),
    "outer": lambda x: torch.outer(x.view(4), x.view(4)).unsqueeze(0),
    "einsum bi,ij->bj": lambda x: torch.einsum("bi,ij->bj", x, M44),
    "einsum ij,bj->bi": lambda x: torch.einsum("ij,bj->bi", M44, x),
    "einsum bij,bjk->bik": lambda x: torch.einsum(
        "bij,bjk->bik", x.view(-1, 2, 2), x.exp().view(-1, 2, 2)
    ),
    "einsum bij,bkj->bik": lambda x: torch.einsum(
        "bij,bkj->bik", x.view(-1, 2, 2), x.exp().view(-1, 2, 2)
    ),
    "einsum bi,bj->bij": lambda x: torch.einsum("bi,bj->bij", x, x.exp()),
    "einsum bi,bi->b": lambda x: torch.einsum("bi,bi->b", x, x.exp()),
    "einsum bij->bji": lambda x: torch.einsum("bij->bji", x.view(-1, 2, 2)),
    "einsum bij->b": lambda x: torch.einsum("bij->b", x.view(-1, 2, 2)),
    "einsum ...i,ij": lambda x: torch.einsum("...i,ij->...j", x, M44),
    "einsum of three": lambda x: torch.einsum("bi,ij,bj->b", x, M44, x),
    "softmax": lambda x: torch.softmax(x.view(-1, 2, 2), 1),
    "log_softmax": lambda x: torch.log_softmax(x.view(-1, 2, 2), 1),
    "logsumexp": lambda x: torch.logsumexp(x.view(-1, 2, 2), (1, 2)),
    "sum": lambda x: x.view(-1, 2, 2).sum((1, 2)),
    "mean keepdim": lambda x: x.view(-1, 2, 2).mean(1, keepdim=True),
    "amax": lambda x: x.view(-1, 2, 2).amax((1, 2)),
    "amin": lambda x: x.amin(1, keepdim=True),
    "min": lambda x: x.min(1).values,
    "aminmax": lambda x: torch.aminmax(x, dim=1),
    "var": lambda x: x.var(1),
    "var biased": lambda x: x.var(1, unbiased=False, keepdim=True),
    "std": lambda x: torch.std(x.view(-1, 2, 2), (1, 2), correction=0),
    "var_mean": lambda x: torch.var_mean(x, 1),
    "norm 1": lambda x: torch.linalg.vector_norm(x, 1, dim=1),
    "norm 2": lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "norm inf": lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "cumsum": lambda x: torch.cumsum(x.view(-1, 2, 2), 1),
    "triu": lambda x: torch.triu(x.view(-1, 2, 2)),
    "sort descending": lambda x: torch.sort(x, 1, descending=True).values,
    "sort rows": lambda x: torch.sort(x.view(-1, 2, 2), 1).values,
    "topk": lambda x: x.topk(2, 1).values,
    "topk smallest": lambda x: x.topk(3, 1, largest=False).values,
    "layer_norm": lambda x: F.layer_norm(x, (4,), C4, C4 + 1),
    "layer_norm two axes": lambda x: F.layer_norm(x.view(-1, 2, 2), (2, 2), M44[:2, :2]),
    "rms_norm": lambda x: F.rms_norm(x, (4,), C4),
    "rms_norm eps": lambda x: F.rms_norm(x.view(-1, 2, 2), (2,), eps=1e-3),
    "group_norm": lambda x: F.group_norm(x, 2, C4, C4 - 1),
    "glu": lambda x: F.glu(x.view(-1, 2, 2), 1),
    "view": lambda x: x.view(-1, 2, 1, 2).squeeze(2).flatten(1).unflatten(1, (2, 2)).contiguous(),
    "transposes": lambda x: x.view(-1, 2, 1, 2).permute(0, 3, 2, 1).transpose(1, 3).mT.clone(),
    "movedim": lambda x: x.view(-1, 1, 2, 2).movedim(2, 1).swapaxes(2, 3).detach(),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 3, -1).expand_as(torch.zeros(1, 3, 4)) * M44[:3],
    "repeat": lambda x: x.repeat(1, 3),
    "repeat rank": lambda x: x.unsqueeze(1).repeat(1, 2, 2),
    "tile": lambda x: x.view(-1, 2, 2).tile((2, 1)),
    "repeat_interleave": lambda x: x.repeat_interleave(3, dim=1),
    "slice": lambda x: (x[:, 1:3], x[:, ::2], x[..., -1:], x[:, 1], x.narrow(1, 1, 2)),
    "index": lambda x: (x[:, [3, 0, 0]], x[:, BOOL4], x.index_select(1, torch.tensor([2, 1]))),
    "index of two axes": lambda x: x.view(-1, 2, 2)[:, [0, 1, 1], [1, 0, 1]],
    "gather": lambda x: x.gather(1, torch.tensor([[2, 0]]).expand(x.shape[0], 2)),
    "diagonal": lambda x: x.view(-1, 2, 2).diagonal(dim1=1, dim2=2),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "split": lambda x: (*x.split(3, 1), *x.chunk(2, 1), *x.unbind(1)[:1], *x.split([1, 3], 1)),
    "cat": lambda x: torch.cat([x, C4.view(1, 4), x.exp()], 1),
    "stack": lambda x: (torch.stack([x, x.exp()], 1), torch.stack([x, x.exp()], 2)),
    "flip": lambda x: x.view(-1, 2, 2).flip(1, 2),
    "roll": lambda x: (x.roll(1, 1), x.view(-1, 2, 2).roll((1, -1), (1, 2))),
    "pad": lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, -1), value=0.3), F.pad(x, (0, 0))),
    "F.dropout": lambda x: F.dropout(x, 0.5, training=False),
    "pixels": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x.view(-1, 4, 1, 1), 2), 2),
}


def _no_grad(x):
    with torch.no_grad():
        y = torch.relu(x)
    return y + x


IMAGE = {  # of x (N, 4, 6, 6)
    "conv stride, dilation, groups": nn.Conv2d(4, 6, 3, 2, 2, 2, groups=2),
    "conv valid": nn.Conv2d(4, 2, 3, padding="valid"),
    "conv same, even kernel": nn.Conv2d(4, 2, (2, 4), padding="same"),
    "conv circular": nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"),
    "conv reflect": nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"),
    "conv replicate": nn.Conv2d(4, 2, 3, padding=(2, 1), padding_mode="replicate"),
    "conv_transpose": nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2),
    "batch_norm": nn.BatchNorm2d(4, affine=False),
    "instance_norm": nn.InstanceNorm2d(4, affine=True),
    "instance_norm of the data set": nn.InstanceNorm2d(4, track_running_stats=True),
    "group_norm": nn.GroupNorm(2, 4),
    "max_pool": nn.MaxPool2d(3, 2, 1),
    "max_pool dilated": nn.MaxPool2d(2, 1, dilation=2),
    "max_pool ceil that changes nothing": nn.MaxPool2d(2, ceil_mode=True),
    "avg_pool": nn.AvgPool2d(3, 2, 1),
    "avg_pool of what is there": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive_avg": nn.AdaptiveAvgPool2d((2, 3)),
    "adaptive_max": nn.AdaptiveMaxPool2d(2),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest to a size": nn.Upsample(size=(9, 12)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear corners": nn.Upsample(size=(7, 11), mode="bilinear", align_corners=True),
    "pixel_shuffle": nn.PixelShuffle(2),
    "pixel_unshuffle": nn.PixelUnshuffle(3),
    "channel_shuffle": nn.ChannelShuffle(2),
    "prelu": nn.PReLU(4),
    "softmax of channels": nn.Softmax2d(),
    "zero pad": nn.ZeroPad2d((1, 2, 0, 1)),
    "reflection pad": nn.ReflectionPad2d(2),
    "replication pad": nn.ReplicationPad2d((0, 1, 2, 0)),
    "mean of places": Function(lambda x: x.mean((2, 3))),
    "squeeze and excite": Function(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
    "channels last": Function(
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)
    ),
    "patches": Function(
        lambda x: x.reshape(-1, 4, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    ),
}

LINE = {  # of x (N, 2, 8)
    "conv1d": nn.Conv1d(2, 4, 3, 2, padding=1, groups=2),
    "conv1d of one channel": nn.Sequential(nn.Conv1d(2, 1, 3), nn.Conv1d(1, 2, 2)),
    "conv_transpose1d": nn.ConvTranspose1d(2, 3, 4, 2, 1),
    "batch_norm1d": nn.BatchNorm1d(2),
    "max_pool1d": nn.MaxPool1d(3, 2, 1),
    "avg_pool1d": nn.AvgPool1d(4, 2, 1),
    "adaptive_avg_pool1d": nn.AdaptiveAvgPool1d(4),
    "adaptive_max_pool1d": nn.AdaptiveMaxPool1d(1),
    "linear upsampling": nn.Upsample(scale_factor=2, mode="linear"),
    "nearest upsampling": nn.Upsample(scale_factor=3),
    "grouped queries": Function(
        lambda x: F.scaled_dot_product_attention(
            *(x.view(-1, 2, 4, 2), x[:, :1].view(-1, 1, 4, 2), x[:, 1:].view(-1, 1, 4, 2)),
            enable_gqa=True,
        )
    ),
}

REFUSED = {  # of x (N, 4, 6, 6)
    "ceil_mode": nn.MaxPool2d(4, ceil_mode=True),
    "not divided evenly": nn.AdaptiveAvgPool2d(4),
    "divisor_override": nn.AvgPool2d(2, divisor_override=3),
    "rounds the size": nn.Upsample(scale_factor=1.3),
    "layer '.*celu has alpha = -1": nn.CELU(-1.0),
    "layer '.*softplus has beta = -2": nn.Softplus(-2.0),
    "layer '.*hardshrink has lambd = -0.5": nn.Hardshrink(-0.5),
    "layer '.*negative_slope = nan": nn.LeakyReLU(float("nan")),
    "layer '.*elu has alpha = inf": nn.ELU(float("inf")),
    "upsample_bicubic2d": nn.Upsample(scale_factor=2, mode="bicubic"),
    "convolutions? of 3|conv3d": Function(
        lambda x: F.conv3d(x[:, None], torch.ones(1, 1, 2, 2, 2).double())
    ),
    "its weight is computed": Function(
        lambda x: F.conv2d(x, x.view(4, 1, 6, 6)[:, :, :3, :3], groups=4)
    ),
    "aten.argsort": Function(lambda x: x.flatten(1).index_select(1, x.flatten().argsort())),
    "aten.argmax": Function(lambda x: x.argmax(1)),
    "label twice": Function(lambda x: torch.einsum("bcii->bci", x)),
    "not a number|computes in float32": Function(lambda x: x.float()),
}


def settled(module):
    for m in module.modules():
        if getattr(m, "running_mean", None) is not None:
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2.0)
    return module.double().eval()


@pytest.mark.parametrize("name", list(VECTOR))
def test_vectors(name):
    assert from_torch(Function(VECTOR[name]), torch.zeros(2, 4).double()).input_shape == (4,)


@pytest.mark.parametrize("name", list(IMAGE))
def test_images(name):
    module = settled(IMAGE[name])
    assert from_torch(module, torch.zeros(2, 4, 6, 6).double()).input_shape == (4, 6, 6)


@pytest.mark.parametrize("name", list(LINE))
def test_lines(name):
    assert from_torch(settled(LINE[name]), torch.zeros(2, 2, 8).double()).input_shape == (2, 8)


@pytest.mark.parametrize("message", list(REFUSED))
def test_refused(message):
    with pytest.raises(UnsupportedError, match=message):
        from_torch(settled(REFUSED[message]), torch.zeros(1, 4, 6, 6).double())


def test_one_sample_of_every_rank():
    for shape in ((4,), (2, 2), (1, 4)):
        network = from_torch(
            Function(lambda x: torch.softmax(2 * x + 1, -1)), torch.zeros(shape), batch_axis=None
        )
        assert network.output_shape == shape


def test_convolution_of_one_sample():
    network = from_torch(nn.Conv1d(1, 2, 3), torch.zeros(1, 7), batch_axis=None)
    assert network.output_shape == (2, 5)
