"""What contraction asks of jax.numpy."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["JaxAlgebra", "jax_algebra"]


class JaxAlgebra:
    """:class:`tangency.theory.ntk.contraction.Algebra` of jax.numpy."""

    blocks = 1  # XLA's products of thin blocks take longer than they save
    xp = np

    def array(self, x: Any) -> Any:
        """A JAX array."""
        import jax.numpy as jnp

        return jnp.asarray(x)

    def host(self, x: Any) -> np.ndarray:
        """A NumPy array."""
        return np.asarray(x)

    def einsum(self, path: str, *arrays: Any) -> Any:
        """Einstein summation at the highest precision."""
        import jax
        import jax.numpy as jnp

        return jnp.einsum(path, *arrays, precision=jax.lax.Precision.HIGHEST)

    def each(self, function: Any, *arrays: Any) -> Any:
        """Map over the first axis, one entry at a time."""
        import jax

        return jax.lax.map(lambda entry: function(*entry), arrays)

    def same(self, left: Any, right: Any) -> Any:
        """Networks have no sites of indices."""
        raise NotImplementedError

    def concatenate(self, arrays: Any, axis: int) -> Any:
        """Join along an axis."""
        import jax.numpy as jnp

        return jnp.concatenate(list(arrays), axis)


@lru_cache(maxsize=1)
def jax_algebra() -> JaxAlgebra:
    """The algebra of jax.numpy."""
    return JaxAlgebra()
