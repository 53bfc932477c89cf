"""CUDA sources as text; :mod:`tangency.gpu.sources` puts a program together from them."""
