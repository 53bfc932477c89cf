"""Lipschitz bounds of convolutional networks in the frequency domain."""

from tangency.verify.certificate.conv import check_conv
from tangency.verify.certificate.conv_norm import conv_norm_bound
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.certificate.conv_witness import ConvWitness
from tangency.verify.lipschitz.conv.network import ConvBound, conv_bound

__all__ = ["ConvBound", "ConvLayer", "ConvWitness", "check_conv", "conv_bound", "conv_norm_bound"]
