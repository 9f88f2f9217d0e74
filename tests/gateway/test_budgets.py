"""What is refused before it does harm."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.budgets import Memory
from app.errors import Overloaded


def test_what_fits_is_counted_until_it_is_let_go() -> None:
    memory = Memory(100)
    with memory.hold(60), memory.hold(40):
        assert memory.used == 100
    assert (memory.used, memory.limit) == (0, 100)


def test_what_does_not_fit_is_refused_at_once_and_counts_for_nothing() -> None:
    memory = Memory(100)
    with memory.hold(60):
        with pytest.raises(Overloaded) as refused, memory.hold(41):
            raise AssertionError("it was let in")
        assert memory.used == 60
    assert refused.value.message == "The gateway is at its memory budget. Try again in a moment."
    assert (refused.value.status, refused.value.retry_after) == (503, 1)


def test_what_is_larger_than_the_budget_is_let_in_alone() -> None:
    memory = Memory(100)
    with memory.hold(101), pytest.raises(Overloaded), memory.hold(1):
        pass
    with memory.hold(1), pytest.raises(Overloaded), memory.hold(101):
        pass


def test_a_failure_inside_lets_go_too() -> None:
    memory = Memory(100)
    with pytest.raises(KeyError), memory.hold(60):
        raise KeyError
    assert memory.used == 0


def test_0_is_no_limit() -> None:
    memory = Memory(0)
    with memory.hold(10**12), memory.hold(10**12):
        assert memory.used == 2 * 10**12


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans())))
def test_the_sum_never_passes_the_limit_save_for_one_alone(steps: list[tuple[int, bool]]) -> None:
    memory, held = Memory(50), list[tuple[ExitStack, int]]()
    for size, let_go in steps:
        if let_go and held:
            held.pop(size % len(held))[0].close()
        stack = ExitStack()
        try:
            stack.enter_context(memory.hold(size))
            held.append((stack, size))
        except Overloaded:
            assert memory.used + size > 50
        assert memory.used == sum(each for _, each in held)
        assert memory.used <= 50 or len([each for _, each in held if each]) == 1
