"""What the subcommands share: options, reading models and data, printing."""

from __future__ import annotations

import io
import json
import math
import traceback
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tangency._version import __version__

if TYPE_CHECKING:
    import numpy as np

    from tangency.models import Network

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "OutputPath",
    "Outputs",
    "Progress",
    "emit",
    "head",
    "load_data",
    "load_model",
    "model_options",
    "number_range",
    "output_options",
    "plot_option",
    "read_arrays",
    "round_down",
    "round_up",
    "save_arrays",
    "save_plot",
    "save_result",
    "to_json",
]


def model_options(function: F) -> F:
    """MODEL and how to read it."""
    function = click.option(
        "--activation",
        default=None,
        metavar="NAME",
        help="Activation between the weights of a .mat file [default: maxmin].",
    )(function)
    function = click.option(
        "--residual", is_flag=True, help="A .mat file of weights x <- x + phi(W x)."
    )(function)
    function = click.option(
        "--per-sample",
        is_flag=True,
        help="The model's input is one sample: its axis 0 is no batch axis.",
    )(function)
    return click.argument("model", type=click.Path(path_type=Path))(function)


def output_options(function: F) -> F:
    """--json, --out and --plot, the same for every subcommand."""
    function = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(
        function
    )
    function = click.option("--out", type=OutputPath(), help="Write the result to this file.")(
        function
    )
    return plot_option("Write a picture to this file")(function)


def plot_option(text: str) -> Callable[[F], F]:
    """--plot, with what it shows."""
    formats = (".png", ".pdf", ".svg")
    return click.option(
        "--plot", type=OutputPath(suffixes=formats), help=f"{text} ({', '.join(formats)})."
    )


def load_model(path: Path, activation: str | None, residual: bool, per_sample: bool) -> Network:
    """Read a model with the options of :func:`model_options`."""
    from tangency.models import InputError, load

    options: dict[str, Any] = {}
    if activation is not None:
        options["activation"] = activation
    if residual:
        options["residual"] = True
    if options and path.suffix != ".mat":
        raise InputError(f"{path}: --activation and --residual are for .mat files")
    if per_sample:
        options["batch_axis"] = None
    network: Network = load(path, **options)
    return network


def head(network: Network, path: Path) -> dict[str, Any]:
    """The part that every JSON answer has: model, its hash, tangency's version."""
    return {"model": {"path": str(path), "hash": network.hash}, "tangency": __version__}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name; that of a .npy file is called ``x``.

    Raises
    ------
    InputError
        Naming the file: unreadable, or no file of arrays.
    """
    import numpy as np

    from tangency.models import InputError

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    try:
        file = np.load(io.BytesIO(content), allow_pickle=False)
        return {"x": file} if isinstance(file, np.ndarray) else {k: file[k] for k in file.files}
    except Exception as error:  # whatever a file that is no array, or a damaged zip, raises
        raise InputError(f"{path}: not a .npz or .npy file of arrays ({error})") from None


def load_data(
    path: Path, network: Network, *, labels: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Inputs ``x`` (and labels ``y``) of a .npz file, or the inputs of a .npy file.

    Raises
    ------
    InputError
        Naming the file and the array: unreadable, missing, empty, of a wrong shape or type.
    """
    from tangency.models import InputError
    from tangency.models.arrays import check_array

    arrays = read_arrays(path)
    by_name = {name.lower(): array for name, array in arrays.items()}
    if "x" not in by_name:
        raise InputError(f"{path}: needs an array 'x' (and 'y' for labels), has {sorted(arrays)}")
    x = by_name["x"]
    check_array(f"{path}: x", x, finite=True)
    want = ", ".join(map(str, network.input_shape))
    if x.ndim == 0 or x.shape[1:] != network.input_shape:
        raise InputError(f"{path}: x has shape {x.shape}, the network takes (n, {want})")
    if len(x) == 0:
        raise InputError(f"{path}: x is empty: give at least one sample")
    y = by_name.get("y")
    if labels and y is None:
        raise InputError(f"{path}: needs labels 'y' beside 'x', has {sorted(arrays)}")
    return x, y


def number_range(option: str, text: str) -> tuple[float, float]:
    """The numbers of LO:HI."""
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise click.UsageError(f"{option} {text}: give LO:HI, such as 0:1") from None


def emit(as_json: bool, data: dict[str, Any], text: str) -> None:
    """Print the answer: one JSON object, or text for a person."""
    click.echo(to_json(data) if as_json else text)


def to_json(data: Any) -> str:
    r"""JSON text; a number that is not finite, which JSON does not have, is null.

    >>> to_json({"upper": float("inf")})
    '{\n  "upper": null\n}'
    """
    return json.dumps(_finite(data), indent=2, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


class OutputPath(click.Path):
    """A file to write, or a folder, looked at before the work: no answer shall be lost for it.

    Parameters
    ----------
    folder : bool, optional
        Whether it is a folder; None: what has no suffix is.
    suffixes : tuple of str
        Those that a file may have, where not all.
    """

    def __init__(self, *, folder: bool | None = False, suffixes: tuple[str, ...] = ()) -> None:
        super().__init__(path_type=Path)
        self.folder, self.suffixes = folder, suffixes

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        from tangency.files import require_writable, why
        from tangency.models.errors import InputError

        path = Path(str(super().convert(value, param, ctx)))
        if self.suffixes and path.suffix not in self.suffixes:
            raise InputError(f"{path}: a picture ends in {', '.join(self.suffixes)}")
        try:
            folder = not path.suffix if self.folder is None else self.folder
            require_writable(path, folder=folder)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({why(error)})") from None
        return path


class Outputs:
    """The files of a command; what goes wrong with one of them waits until the answer is printed.

    So that nothing that was found, in hours perhaps, is lost for a disk that is full.
    """

    def __init__(self) -> None:
        self._failed: Exception | None = None

    def write(
        self, path: Path | None, how: Callable[..., object], *args: Any, **named: Any
    ) -> str | None:
        """Call ``how(path, ...)``; the path as the answer names it, None where nothing is."""
        from tangency.files import why
        from tangency.models.errors import InputError

        if path is None:
            return None
        try:
            how(path, *args, **named)
        except OSError as error:
            self._failed = self._failed or InputError(f"{path}: cannot be written ({why(error)})")
        except Exception as error:
            self._failed = self._failed or error
        else:
            return str(path)
        return None

    def emit(self, as_json: bool, data: dict[str, Any], text: str) -> None:
        """Print the answer, and then say what could not be written."""
        from tangency.models.errors import TangencyError

        click.echo(to_json(data) if as_json else text)
        if isinstance(self._failed, TangencyError):
            raise self._failed
        if self._failed is not None:  # a status of its own, and no second object after the answer
            traceback.print_exception(self._failed)
            raise SystemExit(3)


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays to a .npz file under exactly this name."""
    import numpy as np

    from tangency.files import replacing

    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def save_result(path: Path, result: Any, network: Any, source: Any = None, **arrays: Any) -> None:
    """Write FILE.cert as a certificate, and any other file as arrays."""
    if path.suffix != ".cert":
        save_arrays(path, **arrays)
        return
    from tangency.verify import write_certificate

    write_certificate(path, result, network, source=source)


def save_plot(path: Path, result: Any) -> None:
    """Write a result's figure; the suffix picks the format."""
    from tangency.files import replacing

    with replacing(path) as file:
        result.plot().savefig(file, format=path.suffix[1:], dpi=120)


def _rounded(value: float, digits: int, mode: str) -> str:
    if not math.isfinite(value):
        return str(value)
    # A Decimal made of a float is exact, so the direction of the rounding is the true one.
    return str(Context(prec=digits, rounding=mode).create_decimal(Decimal(value)).normalize())


def round_up(value: float, digits: int = 7) -> str:
    """Decimal text of at most ``digits`` digits that is no less than the value.

    >>> round_up(0.1)  # the float lies above 1/10
    '0.1000001'
    """
    return _rounded(value, digits, ROUND_CEILING)


def round_down(value: float, digits: int = 7) -> str:
    """Decimal text of at most ``digits`` digits that is no more than the value.

    >>> round_down(2 / 3, 4)
    '0.6666'
    """
    return _rounded(value, digits, ROUND_FLOOR)


class Progress:
    """A progress line on standard error, where that is a terminal; called with (done, total)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as Bars

            console = Console(stderr=True)
            self._bar = Bars(console=console, transient=True, disable=not console.is_terminal)
            self._bar.start()
            self._task = self._bar.add_task(self._text, total=total)
        self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
