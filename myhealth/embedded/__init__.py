"""Real PostgreSQL and MongoDB servers for one machine, out of wheels or of what the machine has installed.

Both listen on a Unix socket only, in a folder that only their owner may enter: nobody else on the machine and
nobody on the network can reach them, and there is no port that could be taken. They go on running until
`myhealth db stop`. Run as root, PostgreSQL runs as a system user of its own (it refuses to be root).

Data: FOLDER/postgresql/data and FOLDER/mongodb/data. needs: common
"""

from __future__ import annotations

import sys
from pathlib import Path

from myhealth.common.errors import SettingsError
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres


def servers(folder: Path) -> tuple[Postgres, Mongo]:
    """Both servers of a data folder, running or not. Raises WrongSettings on a system without Unix sockets."""
    if sys.platform == "win32":
        raise SettingsError("embedded servers need a Unix; set MYHEALTH_DATABASE_URL and MYHEALTH_MONGO_URL")
    return Postgres(folder), Mongo(folder)
