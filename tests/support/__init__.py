"""Helpers of the tests. Test modules import from here, never from each other; conftest.py holds the fixtures."""

import pkgutil

import pytest

# Failed asserts of helpers show their values, as those of tests do.
pytest.register_assert_rewrite(*(f"support.{module.name}" for module in pkgutil.iter_modules(__path__)))
