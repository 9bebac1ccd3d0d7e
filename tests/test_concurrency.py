"""Prefetching gives the same results as sequential work, and leaves no thread behind."""

import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myhealth.common.concurrency import parallel_map, prefetch


@given(st.lists(st.integers()), st.integers(1, 5))
def test_it_gives_the_same_in_the_same_order(items: list[int], depth: int) -> None:
    with prefetch(iter(items), depth) as made:
        assert list(made) == items


def test_an_error_comes_behind_what_came_before_it() -> None:
    def stumbling():
        yield 1
        yield 2
        raise ValueError("third")

    seen = []
    with pytest.raises(ValueError, match="third"), prefetch(stumbling()) as made:
        for item in made:
            seen.append(item)
    assert seen == [1, 2]


def test_it_makes_no_more_than_it_may() -> None:
    made_so_far = []

    def counting():
        for i in range(100):
            made_so_far.append(i)
            yield i

    with prefetch(counting(), depth=2) as made:
        next(made)
        time.sleep(0.3)
        assert len(made_so_far) <= 5


@pytest.mark.parametrize("depth", [1, 2])
def test_the_next_item_is_made_while_each_one_is_consumed(depth: int) -> None:
    begun = [threading.Event() for _ in range(6)]

    def made() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    with prefetch(made(), depth) as items:
        for number in items:
            time.sleep(0.05)  # whatever was begun before is done
            assert all(event.wait(10) for event in begun[: number + 1 + depth])


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), prefetch(iter(range(10_000)), depth=1) as made:
        next(made)
        raise KeyboardInterrupt
    assert threading.active_count() == before


def test_threads_take_turns_more_often_from_the_first_prefetch_on() -> None:
    sys.setswitchinterval(0.005)
    with prefetch(iter(range(3))) as made:
        assert [*made] == [0, 1, 2]
        assert sys.getswitchinterval() < 0.0005


def test_work_that_is_done_side_by_side_keeps_its_order_and_raises_behind_what_came_before() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 2 else 0)
        if item == 7:
            raise ValueError("seven")
        return item * item

    got = []
    with pytest.raises(ValueError, match="seven"), parallel_map(work, range(10), workers=3) as results:
        for result in results:
            got.append(result)
    assert got == [i * i for i in range(7)]


def test_an_error_of_the_items_comes_behind_the_results_and_errors_of_those_before_it() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("the third")

    got = []
    with pytest.raises(ValueError, match="the third"), parallel_map(lambda item: item * 10, items()) as results:
        for result in results:
            got.append(result)
    assert got == [10, 20]
    with pytest.raises(ZeroDivisionError), parallel_map(lambda _: 1 / 0, items()) as results:
        next(results)
