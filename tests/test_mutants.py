"""The list of mutants fits the sources: each entry changes one place, and what it leaves parses."""

import ast

import pytest


@pytest.fixture
def mutations(load_module):
    return load_module("mutations.py")


def test_named_mutants_apply(mutations):
    mutants = mutations.named()
    assert sum(not m.harmless for m in mutants) >= 60
    assert {m.room for m in mutants} == set(mutations.ROOMS)
    for m in mutants:
        text = (mutations.HOUSE / m.file).read_text()
        changed = m.apply(text)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), m.place
        assert m.why


def test_the_tests_of_every_room_are_there(mutations):
    for patterns, tests in mutations.ROOMS.values():
        assert all(list(mutations.HOUSE.glob(p)) for p in patterns)
        for file, _, name in (t.partition("::") for t in tests):
            assert f"def {name}(" in (mutations.HOUSE / file).read_text() or not name


def test_drawn_mutants_parse_and_are_the_same_for_a_seed(mutations):
    first = mutations.drawn(list(mutations.ROOMS), 60, 7)
    assert first == mutations.drawn(list(mutations.ROOMS), 60, 7)
    for m in first:
        ast.parse(m.apply((mutations.HOUSE / m.file).read_text()))
