"""From a certificate and the layers of a model to what is proved: the checker's one entry."""

from collections.abc import Sequence

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.chain import check_chain
from tangency.verify.certificate.claim import Certificate, Claim, claim_of
from tangency.verify.certificate.layers import Activation
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.product import ProductWitness, check_product

__all__ = ["prove_claim"]


def prove_claim(
    certificate: Certificate,
    weights: Sequence[Matrix],
    activations: Sequence[Activation],
    *,
    exact: bool = False,
) -> Claim:
    """Prove a certificate's claim for given layers and return it.

    The claim is derived again from the witness that was proved; the certificate must state the
    same one, to the last bit.

    Parameters
    ----------
    certificate : Certificate
    weights : sequence of l Matrix
        Read from the model, never from the certificate.
    activations : sequence of l - 1 Slopes or GroupSort
        Likewise; where the claim has a region, slopes derived from the model over that box.
    exact : bool
        Whether to check in rational arithmetic: small networks only.

    Raises
    ------
    NotProvedError
        With the reason.
    InputError, UnsupportedError, MissingPackageError
        If the exact mode cannot take the network.
    """
    witness = certificate.witness
    if exact:
        from tangency.verify.certificate.exact import check_exact

        check_exact(weights, activations, witness)
    elif isinstance(witness, ProductWitness):
        check_product(weights, activations, witness)
    else:
        check_chain(weights, activations, witness)
    proved = claim_of(witness, certificate.claim.region)
    if proved != certificate.claim:
        raise NotProvedError(
            f"the certificate states {certificate.claim} with the bound "
            f"{certificate.bound.hex()}, its witness proves {proved} with {proved.bound.hex()}"
        )
    return proved
