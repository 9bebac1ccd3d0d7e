"""Load the module of a command. The domain that it imports is loaded when the command runs: help and completion of
options need neither the domain nor a driver.

So a module of the command line imports modules of the domain, and not names from them: `from myhealth.profiles import
services`, then `services.get_user`. To import a name from a module loads that module at once, which is right for the
few small ones that options show, such as the roles of `myhealth.profiles`.
"""

import gc
import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

_unloaded: list[str] = []


class _Domain:
    """Finds the domain's modules for `importlib`, each to be loaded at its first use."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if name.startswith("myhealth.") else None
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
            _unloaded.append(name)
        return found


def load_command(place: str) -> Any:
    """Return a command. `place`: its module and its name there, with a colon between them."""
    module, name = place.split(":")
    sys.meta_path.insert(0, _Domain)
    try:
        return getattr(importlib.import_module(module), name)
    finally:
        sys.meta_path.remove(_Domain)


def load_domain() -> None:
    """Load what commands have imported. A command calls this before it starts threads: msgspec's types must be prepared
    in one (`common.decoding.prepare`), and before Python 3.11.9 LazyLoader shows a second one a module half loaded."""
    gc.disable()  # no module is garbage, neither now nor later
    while _unloaded:
        vars(sys.modules[_unloaded.pop(0)])
    gc.freeze()
    gc.enable()
