"""Find the example files: beside the source in a checkout, else in the installed package's data.

needs: common
"""

from pathlib import Path

from myhealth.common.errors import NotFound


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
