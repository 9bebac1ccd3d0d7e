"""Embedded servers: real PostgreSQL and MongoDB for one machine, from wheels or as the machine has them installed.

Every command starts them if no URL is set. Both listen only on a Unix socket, in a folder that only their owner may
enter, so no other user and no other machine can reach them, and no port can be in use. They run until
`myhealth db stop`. For root, PostgreSQL runs as a system user of its own, because it refuses to run as root.

Data: FOLDER/postgresql/data and FOLDER/mongodb/data. needs: common
"""

import sys
from pathlib import Path

from myhealth.common.errors import SettingsError
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres


def servers(folder: Path) -> tuple[Postgres, Mongo]:
    """Return both servers of a data folder, running or not. Raises SettingsError on Windows."""
    if sys.platform == "win32":
        raise SettingsError("embedded servers need a Unix; set MYHEALTH_DATABASE_URL and MYHEALTH_MONGO_URL")
    return Postgres(folder), Mongo(folder)
