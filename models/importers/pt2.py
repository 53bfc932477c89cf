"""Reading a ``.pt2`` file without running code of it.

``torch.export.load`` unpickles members of the archive without restriction, loads compiled
libraries, and evaluates expressions of symbolic sizes and guards as Python. So the archive is read
here first: the opcodes of pickled members one by one, expressions by Python's parser, and torch
gets a copy made of nothing but the members that passed, without guards.
"""

from __future__ import annotations

import ast
import io
import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

from tangency.files import TEXT_LIMIT, unzipped
from tangency.models.errors import InputError, MissingPackageError, TangencyError

__all__ = ["read_pt2"]

#: Members that torch reads as text.
TEXT = re.compile(r"(.*/)?(archive_format|archive_version|byteorder|version|\.data/.*|extra/.*)")
#: Pickled members whose name ends like one of JSON, in files of torch up to 2.7.
OLD = re.compile(r"serialized_(state_dict|constants|example_inputs)\.json")
#: What expressions of symbolic sizes are made of.
SYMBOL = re.compile(r"[a-z]+\d+")
CALLS = frozenset(
    "Symbol Integer Rational Float Pow Add Mul Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv "
    "CeilToInt FloorToInt TruncToInt TruncToFloat RoundToInt RoundDecimal ToFloat IntTrueDiv "
    "FloatTrueDiv FloatPow PowByNatural ModularIndexing Where Identity LShift RShift Eq Ne Lt Le "
    "Gt Ge StrictLessThan LessThan StrictGreaterThan GreaterThan Equality Unequality And Or Not "
    "BooleanTrue BooleanFalse".split()
)
#: What a pickle of tensors calls; torch's restricted unpickler allows more, ``bytearray(6 << 30)``
#: among it.
CALLED = frozenset(
    "torch._utils _rebuild_tensor_v2,torch._utils _rebuild_parameter,torch Size,torch device,"
    "collections OrderedDict".split(",")
)
#: Opcodes that give a pickle something to call.
NAMING = frozenset("GLOBAL STACK_GLOBAL INST OBJ EXT1 EXT2 EXT4".split())
FORMS = (ast.Expression, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Load)
OPERATORS = (ast.operator, ast.unaryop, ast.cmpop)


def read_pt2(path: Path) -> Any:
    """The exported program in a ``.pt2`` file.

    Raises
    ------
    InputError
        When a member could run code or is damaged: names the member.
    MissingPackageError
        When PyTorch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingPackageError(
            f"{path}: reading a .pt2 file needs torch: pip install 'tangency[torch]'"
        ) from None
    try:
        return torch.export.load(_safe_copy(path))
    except TangencyError:
        raise
    except Exception as error:  # torch meets damaged archives in many ways
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a readable program of torch.export: {text}") from None


def _safe_copy(path: Path) -> io.BytesIO:
    """The archive as a new one that holds what was checked, whatever two readers make of it."""
    with path.open("rb") as source:
        members = unzipped(source)
    documents = {n: _document(path, n, d) for n, d in members.items() if _is_document(n)}
    raw = _raw(documents)
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as file:
        for name, data in members.items():
            if name in documents:
                data = json.dumps(documents[name]).encode()
            elif not TEXT.fullmatch(name) and name not in raw:
                _check_pickled(path, name, data)
            file.writestr(zipfile.ZipInfo(name), data)
    copy.seek(0)
    return copy


def _is_document(name: str) -> bool:
    return name.endswith(".json") and not OLD.fullmatch(name.rpartition("/")[2])


def _document(path: Path, name: str, data: bytes) -> Any:
    """The content of a member of JSON, its expressions checked."""
    if len(data) > TEXT_LIMIT:
        raise InputError(
            f"{path}: member {name!r} has {len(data)} bytes; {TEXT_LIMIT} are accepted"
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: member {name!r} is damaged: {error}") from None
    if isinstance(document, dict):
        document.pop("guards_code", None)  # Python that checks the sizes of inputs
    for expression in _expressions(document):
        if not _harmless(expression):
            raise InputError(
                f"{path}: member {name!r} holds the expression {expression[:80]!r}, which is not "
                "one of symbolic sizes; it is not opened, as it may run code"
            )
    return document


def _expressions(document: Any) -> list[str]:
    """The strings that torch evaluates."""
    if isinstance(document, list):
        return [e for item in document for e in _expressions(item)]
    if not isinstance(document, dict):
        return []
    own = [str(document["expr_str"])] if "expr_str" in document else []
    return own + [e for item in document.values() for e in _expressions(item)]


def _harmless(expression: str) -> bool:
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False

    def fine(node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return node.id in CALLS or bool(SYMBOL.fullmatch(node.id))
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return bool(SYMBOL.fullmatch(node.value))
            return isinstance(node.value, int | float)
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and node.func.id in CALLS
        return isinstance(node, FORMS + OPERATORS)

    return all(fine(node) for node in ast.walk(tree))


def _raw(documents: dict[str, Any]) -> set[str]:
    """Members that torch takes as bytes of numbers, as the tables of weights say."""
    raw = set()
    for name, document in documents.items():
        folder, _, last = name.rpartition("/")
        table = document.get("config") if isinstance(document, dict) else None
        if last.endswith("_config.json") and isinstance(table, dict):
            entries = [e for e in table.values() if isinstance(e, dict)]
            raw |= {
                f"{folder}/{e.get('path_name')}" for e in entries if e.get("use_pickle") is False
            }
            pickled = {f"{folder}/{e.get('path_name')}" for e in entries if e.get("use_pickle")}
            raw -= pickled
    return raw


def _check_pickled(path: Path, name: str, data: bytes) -> None:
    """Refuse a member that is no archive of saved tensors, before anything of it is made."""
    import torch

    if not data:
        return
    try:
        members = unzipped(io.BytesIO(data))
        pickled = [inner for inner in members if inner.endswith("data.pkl")]
        # torch takes for a bare pickle what does not begin as an archive, whatever is behind it.
        if data[:4] != b"PK\x03\x04" or len(pickled) != 1:
            raise ValueError("not an archive of torch.save")
        for opcode, given, _ in pickletools.genops(members[pickled[0]]):
            if opcode.name in NAMING and not (
                opcode.name == "GLOBAL" and _is_of_tensors(str(given))
            ):
                raise ValueError(f"it names {given or opcode.name}")
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: member {name!r} is more than tensors, and is not opened as it may run code: "
            f"{text}"
        ) from None


def _is_of_tensors(name: str) -> bool:
    """Whether ``module name`` is one of CALLED, a dtype, or the typed storage of one."""
    import torch

    module, _, last = name.partition(" ")
    if module == "torch" and re.fullmatch(r"[A-Z][A-Za-z0-9]+Storage", last):
        return last not in ("TypedStorage", "UntypedStorage")  # with a size these make one
    return name in CALLED or (
        module == "torch" and isinstance(getattr(torch, last, None), torch.dtype)
    )
