"""Find the example files, beside the source in a checkout or in the installed package's data, and layouts of tables.

needs: common, intake
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from myhealth.common.errors import BadInput, NotFound

if TYPE_CHECKING:
    from myhealth.intake.formats.tables.layout import Layout


def example(name: str) -> Path:
    """Return the path of an example file. Raises NotFound if this installation has no such file."""
    from importlib.metadata import PackageNotFoundError, distribution  # which takes long to load

    root = Path(__file__).parent.parent
    places = [root / "examples" / name, root / "share/myhealth/examples" / name]  # a checkout; `pip install --target`
    try:
        files = distribution("myhealth").files or ()
        places += [Path(str(file.locate())) for file in files if file.parts[-2:] == ("examples", name)]
    except PackageNotFoundError:
        pass
    for path in places:
        if path.is_file():
            return path
    raise NotFound(f"the example {name} was not installed with this myhealth")


GENERAL = ("wide", "long")
DEVICES = ("freestyle-libre", "omron-blood-pressure", "withings-scale")
NAMES = (*GENERAL, *DEVICES)


def named_layout(name: str | None, **given: str | None) -> Layout:
    """Return the layout of a name, else one that is guessed, with the parts that are given. Raises BadInput."""
    # the help of a command shows only NAMES
    from myhealth.intake.formats.tables.layout import GUESSED, check_layout, parse_layout

    if not name:
        return check_layout(GUESSED, **given)
    if name not in NAMES:
        raise BadInput(f"there is no layout named {name!a}; there are {', '.join(NAMES)}")
    text = name if name in GENERAL else example(f"{name}.toml").read_text(encoding="utf-8")
    return check_layout(parse_layout(text), **given)
