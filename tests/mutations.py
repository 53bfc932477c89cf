"""Mutants of what must be sound: is each constant and each sign held by a test?

    python tests/mutations.py [--room certificate] [--jobs 1] [--list]
    python tests/mutations.py --count 30 --seed 1      # drawn ones, of any kind, instead

`mutants.toml` names changes that would make a proof false, each with its reason. The tree is copied
to a temporary folder, one change is made there at a time, and the tests of its room are run until
one fails. A named mutant that survives is an error; one of the entries that say why nothing false
could come of them (`harmless`), or a drawn one, is shown alone. Run it with the tests' extras.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

HOUSE = Path(__file__).resolve().parents[1]
NEEDED = ("src", "models", "theory", "verify", "gpu", "tests", "pyproject.toml")
LIMIT = 900  # seconds; a mutant that never ends is found out, too

#: Files of each room (the first that fits), and its tests, those that fail soonest first.
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "exact": (
        ("verify/certificate/exact*.py", "verify/certificate/rationals.py"),
        ("tests/verify/test_certificate_exact.py",),
    ),
    "certificate": (
        ("verify/certificate/*.py",),
        (
            "tests/verify/test_rounding_certificate.py",
            "tests/verify/test_rounding_witnesses.py",
            "tests/verify/test_rounding_conv.py",
            "tests/verify/test_definite.py",
            "tests/verify/test_certificate_claims.py",
        ),
    ),
    "rigorous": (
        ("verify/rigorous/*.py",),
        (
            "tests/verify/test_rounding_rigorous.py",
            "tests/verify/test_rounding_steps.py",
            "tests/verify/test_rounding_forward.py",
            "tests/verify/test_rounding_ops.py",
        ),
    ),
    "intervals": (
        ("models/intervals.py", "models/interval_functions.py"),
        ("tests/models/test_rounding_intervals.py", "tests/models/test_intervals.py"),
    ),
    "activations": (
        ("models/activations/*.py",),
        (  # of the kinks not those tests that draw formulas, or go through the whole catalogue
            *(
                f"tests/models/activations/test_kinks.py::test_{name}"
                for name in (
                    "zero_times_infinity_is_open",
                    "a_choice_has_the_slopes_of_its_jump",
                    "what_is_not_shown_to_be_continuous_has_no_finite_slope",
                    "branches_that_meet_are_shown_to_meet",
                    "the_direction_of_a_jump_is_found",
                    "a_branch_without_a_value_is_not_shown_to_meet",
                    "an_own_derivative_does_not_hide_a_jump",
                    "the_range_at_a_point_is_not_empty",
                    "a_rational_whose_denominator_has_a_kink_keeps_both_slopes",
                    "a_slope_beside_a_kink_is_not_lost",
                )
            ),
            "tests/models/activations/test_activation_slopes.py",
            "tests/models/activations/test_tails.py",
        ),
    ),
    "engine": (("verify/lipschitz/engine/*.py",), ("tests/verify/test_engine.py",)),
    "search": (
        ("verify/bounds/search/*.py",),
        (
            "tests/verify/test_search_engine.py",
            "tests/verify/test_search_alpha.py",
            "tests/verify/test_search_ties.py",
        ),
    ),
    "duals": (("theory/kernels/duals*.py",), ("tests/theory/test_duals.py",)),
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Parameters
    ----------
    room : str
    file : str
        From the root of the house.
    start, stop : int
        The characters that are replaced.
    new : str
    old : str
    why : str
        What would be false.
    harmless : str
        Why nothing false comes of it, if that is so.
    """

    room: str
    file: str
    start: int
    stop: int
    old: str
    new: str
    why: str = ""
    harmless: str = ""

    def apply(self, text: str) -> str:
        """The changed source."""
        return text[: self.start] + self.new + text[self.stop :]

    @property
    def place(self) -> str:
        """File and line of the first character that differs."""
        text = (HOUSE / self.file).read_text()
        same = _shared(self.old, self.new)
        return f"{self.file}:{text.count(chr(10), 0, self.start + same) + 1}"

    @property
    def change(self) -> str:
        """Old and new in one line, what they share left out."""
        first, last = (" ".join(v.split()) for v in (self.old, self.new))
        same = _shared(first, last)
        back = _shared(first[same:][::-1], last[same:][::-1])
        before, after = first[max(same - 12, 0) : same], first[len(first) - back :][:8]
        cut = (f"{before}{v[same : len(v) - back]}{after}" for v in (first, last))
        return " -> ".join(cut)


def _shared(a: str, b: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def room_of(file: str) -> str:
    """The room that a file belongs to."""
    for room, (patterns, _) in ROOMS.items():
        if any(Path(file).match(p) for p in patterns):
            return room
    raise ValueError(f"{file} is in none of the rooms {', '.join(ROOMS)}")


def named() -> list[Mutant]:
    """The mutants of the list; ValueError for one that fits its file nowhere, or twice."""
    found = []
    entries = tomllib.loads((HOUSE / "tests/mutants.toml").read_text())["mutant"]
    for entry in entries:
        file, old = entry["file"], entry["old"]
        text = (HOUSE / file).read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file}: found {text.count(old)} times: {old!r}")
        start = text.index(old)
        why, harmless = entry["why"], entry.get("harmless", "")
        found.append(
            Mutant(room_of(file), file, start, start + len(old), old, entry["new"], why, harmless)
        )
    return found


# --- drawn mutants ------------------------------------------------------------------------------

_TURNED = {
    "up": "down", "down": "up", "_up": "_down", "_down": "_up", "maximum": "minimum",
    "minimum": "maximum", "max": "min", "min": "max", "multiply_up": "multiply_down",
}  # fmt: skip
_DROPPED = {"up", "down", "_up", "_down", "abs"}
_COMPARED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}


def drawn(rooms: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Changes of constants, signs, comparisons and roundings, drawn from all that there are."""
    pool = [
        mutant
        for room in rooms
        for pattern in ROOMS[room][0]
        for path in sorted(HOUSE.glob(pattern))
        if room_of(path.relative_to(HOUSE).as_posix()) == room
        for mutant in _changes(room, path)
    ]
    return random.Random(seed).sample(pool, min(count, len(pool)))


def _changes(room: str, path: Path) -> Iterator[Mutant]:
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line))

    def place(line: int, column: int) -> int:  # columns of `ast` count bytes
        return begins[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    def between(a: ast.expr, b: ast.expr, sign: str) -> tuple[int, int]:
        """Where the operator between two operands stands."""
        first, last = span(a)[1], span(b)[0]
        at = first + text[first:last].index(sign)
        return at, at + len(sign)

    file = path.relative_to(HOUSE).as_posix()
    for node in ast.walk(ast.parse(text)):
        for (start, stop), new in _of_node(node, text, span, between):
            if text[start:stop] != new:
                yield Mutant(room, file, start, stop, text[start:stop], new)


def _of_node(node: ast.AST, text: str, span, between) -> Iterator[tuple[tuple[int, int], str]]:  # type: ignore[no-untyped-def]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value, where = node.value, span(node)
        changed = (
            (2 * value, 0, value + 1, value - 1)
            if isinstance(value, int)
            else (2.0 * value, value / 2.0, 0.0)
        )
        yield from ((where, repr(v)) for v in changed if v != value)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        plus = isinstance(node.op, ast.Add)
        yield between(node.left, node.right, "+" if plus else "-"), "-" if plus else "+"
        (first, last), (a, b), (c, d) = span(node), span(node.left), span(node.right)
        yield (first, last), f"({text[a:b]})"
        yield (first, last), f"({text[c:d]})"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
        new = _COMPARED[type(node.ops[0])]
        old = new[0] if len(new) == 2 else new + "="
        yield between(node.left, node.comparators[0], old), new
    elif isinstance(node, ast.Call):
        name = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else (node.func.id if isinstance(node.func, ast.Name) else "")
        )
        stop = span(node.func)[1]
        if name in _TURNED:
            yield (stop - len(name), stop), _TURNED[name]
        if name == "nextafter":
            first, last = span(node.args[1])
            end = text[first:last]
            yield (first, last), end[1:] if end.startswith("-") else f"-{end}"
        if name in _DROPPED | {"nextafter"} and node.args:
            first, last = span(node.args[0])
            yield span(node), f"({text[first:last]})"


# --- running ------------------------------------------------------------------------------------


# Forked from a process that has loaded what takes longest, a mutant takes a second and not three.
_SERVER = """
import os, signal, sys
import mpmath, numpy, pytest
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.alarm(int(sys.argv[1]))
        report = os.open("report.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(report, 1), os.dup2(report, 2)
        status = int(pytest.main(line.split()))
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Tree:
    """A copy of the house in a folder of its own, and a process that runs tests there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in NEEDED:
            source = HOUSE / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
                shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
            else:
                shutil.copy(source, folder / name)
        environment = dict(os.environ, PYTHONPATH=str(folder / "src"), CI="1")
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "cache")
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take three quarters of the time
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(LIMIT)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, tests: Sequence[str]) -> tuple[str, float]:
        """What failed first ("" for nothing), and seconds."""
        begin = time.monotonic()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"-x -q --tb=no -p no:cacheprovider {' '.join(tests)}\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        seconds = time.monotonic() - begin
        if status == 0:
            return "", seconds
        report = (self.folder / "report.txt").read_text()
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", report, re.MULTILINE)
        return (found[1] if found else f"pytest ended with {status}"), seconds

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _tried(tree: Tree, mutant: Mutant, number: int) -> tuple[str, float]:
    path = tree.folder / mutant.file
    text = path.read_text()
    try:
        path.write_text(mutant.apply(text))
        # Python takes a compiled file by time and size: both could be those of the mutant before.
        os.utime(path, (number + 1, number + 1))
        return tree.run(ROOMS[mutant.room][1])
    finally:
        path.write_text(text)
        os.utime(path, (0, 0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants; 1 if one that is unsound survives, 2 if the tests fail without a change."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--room", action="append", choices=ROOMS, help="of these rooms alone")
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--count", type=int, default=0, help="draw so many, instead of the named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a pattern that the place or the change has")
    options = parser.parse_args(arguments)
    rooms = options.room or list(ROOMS)
    mutants = drawn(rooms, options.count, options.seed) if options.count else named()
    mutants = [m for m in mutants if m.room in rooms]
    mutants = [m for m in mutants if re.search(options.only, f"{m.place} {m.change}")]
    if options.list:
        for m in mutants:
            print(f"{m.place} | {m.change} | {m.harmless or m.why}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        trees = []
        try:
            for k in range(options.jobs):
                (Path(folder) / str(k)).mkdir()
                trees.append(Tree(Path(folder) / str(k)))
            return _table(mutants, trees)
        finally:
            for tree in trees:
                tree.close()


def _table(mutants: Sequence[Mutant], all_trees: Sequence[Tree]) -> int:
    trees: SimpleQueue[Tree] = SimpleQueue()
    for tree in all_trees:
        trees.put(tree)
    for room in dict.fromkeys(m.room for m in mutants):
        failed, seconds = all_trees[0].run(ROOMS[room][1])
        print(f"{room}: {seconds:.0f} s without a change", flush=True)
        if failed:
            print(f"its tests fail without a change: {failed}")
            return 2

    def one(numbered: tuple[int, Mutant]) -> tuple[Mutant, str, float]:
        number, mutant = numbered
        own = trees.get()
        try:
            return mutant, *_tried(own, mutant, number)
        finally:
            trees.put(own)

    print("| mutant | change | killed by | s |\n|---|---|---|---|")
    counts = {m.room: [0, 0, 0] for m in mutants}
    unsound = 0
    with ThreadPoolExecutor(len(all_trees)) as pool:
        for mutant, killer, seconds in pool.map(one, enumerate(mutants)):
            result = killer or (f"harmless: {mutant.harmless}" if mutant.harmless else "SURVIVED")
            change = mutant.change.replace("|", "\\|")
            print(f"| {mutant.place} | `{change}` | {result} | {seconds:.0f} |", flush=True)
            counts[mutant.room][0 if killer else 1 if mutant.harmless else 2] += 1
            unsound += not killer and not mutant.harmless and bool(mutant.why)
    print("\n| room | killed | harmless | survived |\n|---|---|---|---|")
    for room, numbers in counts.items():
        print(f"| {room} | {' | '.join(map(str, numbers))} |")
    return 1 if unsound else 0


if __name__ == "__main__":
    sys.exit(main())
