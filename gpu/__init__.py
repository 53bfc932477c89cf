"""CUDA kernels for Gram matrices too large for anything else, their tiles, solvers and clusters."""

if __name__ != "tangency.gpu":  # the folder was imported by its bare name from the checkout
    raise ImportError("this folder is the package tangency.gpu: pip install -e . and import it")
