"""Layouts of tables by name: the general ones, and those of devices among the examples.

needs: common, intake
"""

from myhealth.common.errors import BadInput
from myhealth.examples import example
from myhealth.intake.formats.tables.layout import Layout, parse_layout

GENERAL = ("wide", "long")
DEVICES = ("freestyle-libre", "omron-blood-pressure", "withings-scale")
NAMES = (*GENERAL, *DEVICES)


def named_layout(name: str) -> Layout:
    """Return the layout of a name. Raises BadInput."""
    if name not in NAMES:
        raise BadInput(f"there is no layout named {name!a}; there are {', '.join(NAMES)}")
    return parse_layout(name if name in GENERAL else example(f"{name}.toml").read_text(encoding="utf-8"))
