"""How much work a program does, measured without a clock: machines are shared, and time there is chance."""

import sys
from collections.abc import Callable
from typing import Any


def count_calls(run: Callable[[], object]) -> int:
    """Return how many functions `run` calls in this thread, those of Python and those in C."""
    count = 0

    def hook(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(hook)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def grows_with_the_square(run: Callable[[int], object], few: int) -> bool:
    """Return whether `run(4 * few)` does far more than four times the work of `run(few)`; with the square it is 16."""
    return count_calls(lambda: run(4 * few)) > 7 * count_calls(lambda: run(few))
