"""MyHealth: collects health check-up reports and gives them back to the people they are about.

Each package is a feature; its docstring lists the packages that it needs. No module imports click or bottle, and
importing a module opens nothing.
"""

__version__ = "0.1.0"
