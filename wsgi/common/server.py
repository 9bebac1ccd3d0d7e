"""gunicorn's configuration for `myhealth serve` and the demo: `-c python:wsgi.common.server`."""

import contextlib
from typing import Any

import gunicorn

from myhealth.common.errors import MyHealthError
from myhealth.common.logs import gunicorn_logging

# Responses do not name the server's software.
gunicorn.SERVER = "MyHealth"
worker_class = "gthread"


def on_starting(server: Any) -> None:
    """Format gunicorn's own log lines like all others. If the settings are wrong, each request reports the reason."""
    with contextlib.suppress(MyHealthError):
        server.cfg.set("logconfig_dict", gunicorn_logging("warning"))
        server.log.setup(server.cfg)


def post_worker_init(worker: Any) -> None:
    """Serve the metrics at an address of their own, if the settings name one."""
    worker.wsgi.started()


def child_exit(server: Any, worker: Any) -> None:
    """Forget the connections of a worker that has ended; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
