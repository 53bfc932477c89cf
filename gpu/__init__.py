"""CuPy kernels for Gram matrices too large for anything else: the room, not yet furnished."""

if __name__ != "tangency.gpu":  # the folder was imported by its bare name from the checkout
    raise ImportError("this folder is the package tangency.gpu: pip install -e . and import it")
