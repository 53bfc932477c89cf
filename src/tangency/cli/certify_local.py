"""``tangency certify MODEL --local X.npz --eps E``: a Lipschitz bound near each sample."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tangency.cli.common import (
    Outputs,
    head,
    load_data,
    round_down,
    round_up,
    save_arrays,
    save_plot,
    to_json,
)

if TYPE_CHECKING:
    from tangency.models import Network
    from tangency.verify import LipschitzBound

__all__ = ["Status", "named", "near_samples", "write_json"]


class Status:
    """The bound so far on standard error, where that is a terminal."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._shown: Any = None

    def __enter__(self) -> Status:
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal:
            self._shown = console.status(self.text)
            self._shown.start()
        return self

    def __call__(self, bound: float, seconds: float) -> None:
        if self._shown is not None:
            self._shown.update(f"{self.text}: {bound:.7g} not yet proved, {seconds:.1f} s")

    def __exit__(self, *exception: object) -> None:
        if self._shown is not None:
            self._shown.stop()


def near_samples(
    network: Network,
    path: Path,
    data: Path,
    eps: float,
    limit: int | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    options: dict[str, Any],
) -> None:
    """Bound the Lipschitz constant on the ball around each sample and print the table."""
    from tangency.models.errors import InputError
    from tangency.verify import write_certificate
    from tangency.verify.certificate.source import Samples
    from tangency.verify.lipschitz.local_samples import LocalBounds

    x, _ = load_data(data, network)
    x = x[:limit]
    if out is not None and out.suffix not in (".cert", ".json", ".npz", ""):
        raise InputError(
            f"{out}: give a folder or FILE.cert for certificates, FILE.npz for the bounds, or "
            "FILE.json for the answer"
        )
    if out is not None and out.suffix == ".cert" and len(x) > 1:
        raise InputError(
            f"{out}: a certificate is for one sample: give a folder, or --limit 1 for the first"
        )
    begin = time.perf_counter()
    found = _bounds(network, x, eps, options)
    files = Outputs()
    certificates: list[str | None] = [None] * len(found)
    if out is not None and out.suffix in (".cert", ""):
        if not out.suffix:
            files.write(out, Path.mkdir, parents=True, exist_ok=True)
        certificates = [
            files.write(
                out if out.suffix else out / f"sample_{i:04d}.cert",
                write_certificate,
                bound,
                network,
                source=Samples(x, eps).source([i]),
            )
            for i, bound in enumerate(found)
        ]
    rows = [
        {"sample": i} | bound.as_dict() | {"ratio": bound.ratio, "certificate": certificate}
        for i, (bound, certificate) in enumerate(zip(found, certificates, strict=True))
    ]
    answer = head(network, path) | {
        "local": True,
        "eps": eps,
        "samples": len(x),
        "bounded": len(found),
        "certified": all(bound.certified for bound in found),
        "seconds": time.perf_counter() - begin,
        "results": rows,
        "out": None if out is None else str(out),
    }
    if out is not None and out.suffix == ".json":
        files.write(out, write_json, answer)
    elif out is not None and out.suffix == ".npz":
        answer["out"] = files.write(
            out,
            save_arrays,
            upper=[bound.upper for bound in found],
            lower=[float("nan") if bound.lower is None else bound.lower for bound in found],
            eps=eps,
        )
    files.write(plot, save_plot, LocalBounds(tuple(found), eps))
    first = found[0]
    worst = max(found, key=lambda bound: bound.upper)
    lines = [
        f"{path}: l{first.norm} -> {first.output} Lipschitz constant within {eps:g} "
        f"(l-infinity) of {len(found)} of {len(x)} samples of {data}",
        f"  {'sample':>6}  {'certified':>12}  {'attained':>12}  {'ratio':>8}  {'seconds':>7}",
    ]
    for i, bound in enumerate(found):
        attained = "none" if bound.lower is None else round_down(bound.lower)
        lines.append(
            f"  {i:>6}  {round_up(bound.upper):>12}  {attained:>12}  "
            f"{round_up(bound.ratio, 5):>8}  {bound.seconds:>7.2f}"
            + ("" if bound.finished else "  stopped early")
        )
    lines += [
        f"  weights  sha256 {network.hash}",
        f"Proved: for each sample, {named(worst, 'certified')} for all x and y within {eps:g} of "
        f"it (at most {round_up(worst.upper)}), in real arithmetic, for exactly these weights.",
    ]
    if len(found) < len(x):
        lines.append(f"Interrupted: {len(x) - len(found)} samples were not bounded.")
    files.emit(as_json, answer, "\n".join(lines))
    if len(found) < len(x):
        raise SystemExit(1)


def _bounds(network: Network, x: Any, eps: float, options: dict[str, Any]) -> list[LipschitzBound]:
    """Return the bounds of the samples up to an interrupt; one at least, or the interrupt."""
    from tangency.verify import Box, lipschitz_bound
    from tangency.verify.chain.unroll import is_plain, unroll

    parts = unroll(network) if is_plain(network) else None
    boxes = [Box.around(sample, eps) for sample in x]
    found: list[LipschitzBound] = []
    with Status("") as status, _interrupts() as interrupted:
        for i, box in enumerate(boxes):
            status.text = f"sample {i + 1} of {len(x)}"
            try:
                bound = lipschitz_bound(
                    network, box=box, unrolled=parts, progress=status, **options
                )
            except KeyboardInterrupt:
                if not found:
                    raise
                break
            found.append(bound)
            if interrupted:  # the search took it as its end, and what it had is proved
                break
    return found


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Note each Ctrl-C in a list and pass it on: what is called may end early in answer to it."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def named(bound: LipschitzBound, upper: str) -> str:
    """The inequality that a bound states."""
    if bound.output.startswith("margin:"):
        i, j = bound.output.partition(":")[2].split(",")
        return f"|g(x) - g(y)| <= {upper} |x - y|_{bound.norm} with g = f[{i}] - f[{j}]"
    return f"|f(x) - f(y)|_{bound.output} <= {upper} |x - y|_{bound.norm}"


def write_json(path: Path, answer: dict[str, Any]) -> None:
    """Write an answer to a file."""
    from tangency.files import write

    write(path, to_json(answer) + "\n")
