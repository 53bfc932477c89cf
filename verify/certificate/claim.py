"""What a certificate claims, in words and as data."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from tangency.verify.certificate.branch import BranchWitness
from tangency.verify.certificate.conv_pieces import FrequencyWitness
from tangency.verify.certificate.implicit import ImplicitWitness
from tangency.verify.certificate.implicit_product import ImplicitProductWitness
from tangency.verify.certificate.outputs import LinearWitness, OutputsClaim
from tangency.verify.certificate.product import ProductWitness
from tangency.verify.certificate.regions import Region, decimal
from tangency.verify.certificate.source import Source
from tangency.verify.certificate.witness import ChainWitness

__all__ = [
    "IMPLICIT",
    "WITNESSES",
    "Certificate",
    "Claim",
    "LipschitzWitness",
    "Norm",
    "Output",
    "Region",
    "Witness",
    "claim_of",
]

Norm: TypeAlias = Literal["1", "2", "inf"]
Output: TypeAlias = Literal["1", "2", "inf", "margin"]
#: Those of a Lipschitz constant.
LipschitzWitness: TypeAlias = (
    ChainWitness
    | ProductWitness
    | BranchWitness
    | FrequencyWitness
    | ImplicitWitness
    | ImplicitProductWitness
)
Witness: TypeAlias = LipschitzWitness | LinearWitness
#: The types of witness that a certificate may hold, by the names that files call them.
WITNESSES: dict[str, type] = {cls.__name__: cls for cls in get_args(Witness)}
#: Those whose model is an implicit layer.
IMPLICIT = (ImplicitWitness, ImplicitProductWitness)


@dataclass(frozen=True)
class Claim:
    r"""That a network is Lipschitz: :math:`|f(x) - f(y)|_q \le L\,|x - y|_p` for all x and y.

    Parameters
    ----------
    kind : {"lipschitz"}
    norm_in : {"1", "2", "inf"}
        p, of the flattened input.
    norm_out : {"1", "2", "inf", "margin"}
        q, of the flattened output; with "margin" f stands for the difference of two entries.
    bound : float
        L.
    margin : tuple of int
        The entries i and j of f_i - f_j, otherwise empty.
    region : Region, optional
        The box that x and y are taken from; all of space where there is none.
    """

    kind: Literal["lipschitz"]
    norm_in: Norm
    norm_out: Output
    bound: float
    margin: tuple[int, ...] = ()
    region: Region | None = None

    def __str__(self) -> str:
        """The inequality, its number rounded upward to 12 digits.

        Examples
        --------
        >>> print(Claim("lipschitz", "2", "2", 2.5))
        |f(x) - f(y)|_2 <= 2.5 |x - y|_2 for all x and y
        >>> print(Claim("lipschitz", "inf", "margin", 0.5, (3, 5)))
        |g(x) - g(y)| <= 0.5 |x - y|_inf for all x and y, where g = f[3] - f[5]
        """
        number = decimal(self.bound, up=True, digits=12)
        right = f"{number} |x - y|_{self.norm_in} for all x and y"
        if self.region is not None:
            right += f" in {self.region}"
        if self.norm_out == "margin":
            i, j = self.margin
            return f"|g(x) - g(y)| <= {right}, where g = f[{i}] - f[{j}]"
        return f"|f(x) - f(y)|_{self.norm_out} <= {right}"

    def as_dict(self) -> dict[str, Any]:
        """What is stated as data, for programs; a region of None is all of space."""
        return {
            "kind": self.kind,
            "norm_in": self.norm_in,
            "norm_out": self.norm_out,
            "margin": list(self.margin),
            "bound": self.bound,
            "region": None if self.region is None else self.region.as_dict(),
        }

    def words(self, network: str) -> str:
        """The claim with its conditions, for the network of a hash."""
        return f"{self}, in real arithmetic, for exactly the weights with sha256 {network}"


@dataclass(frozen=True, eq=False)
class Certificate:
    """A claim about one network, and what proves it.

    Nothing in it is trusted: `tangency.check` derives the claim again.

    Parameters
    ----------
    claim : Claim or OutputsClaim
    network : str
        The hash of the network, `Network.hash`.
    input_shape, output_shape : tuple of int
    method : str
        How the witness was found. Not needed for the proof.
    tangency : str
        The version that wrote it.
    witness : Witness
        Of one of the types in `WITNESSES`.
    source : Source, optional
        The data that the sets of the claim were made from. No part of the claim.
    """

    claim: Claim | OutputsClaim
    network: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    method: str
    tangency: str
    witness: Witness
    source: Source | None = None

    @property
    def bound(self) -> float:
        """The number that is claimed."""
        return self.claim.bound

    @property
    def region(self) -> Region | None:
        """The box of a local Lipschitz claim, if it is one."""
        return self.claim.region if isinstance(self.claim, Claim) else None

    def __str__(self) -> str:
        return self.claim.words(self.network)


def claim_of(witness: LipschitzWitness, region: Region | None = None) -> Claim:
    """Return the Lipschitz claim that a witness proves where its check succeeds, and no more.

    Parameters
    ----------
    witness : Witness
    region : Region, optional
        The box over which the slopes hold that the witness is checked with.

    Examples
    --------
    >>> claim_of(ProductWitness(6.0, (2.0, 3.0))).bound
    6.0
    """
    norm, output = cast("Norm", witness.norm), cast("Output", witness.output)
    return Claim("lipschitz", norm, output, witness.bound, witness.margin, region)
