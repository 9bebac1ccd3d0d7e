"""MyHealth: collects health check-up reports and gives them back to the people they are about.

The packages below are features; each names what it needs in its docstring. Nothing here knows click or
bottle, and importing a module opens nothing.
"""

__version__ = "0.1.0"
