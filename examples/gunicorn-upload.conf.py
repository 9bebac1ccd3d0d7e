"""gunicorn for the upload API: gunicorn -c gunicorn-upload.conf.py

Settings come from the environment and the settings file. Put a proxy that speaks HTTPS in front.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile

import gunicorn

# Responses do not name the server's software.
gunicorn.SERVER = "MyHealth"

wsgi_app = "wsgi.upload:app"
bind = "127.0.0.1:5000"
proc_name = "myhealth-upload"

# Threads wait for the database together; two processes use two cores.
worker_class = "gthread"
workers = 2
threads = 8
keepalive = 5
timeout = 120
graceful_timeout = 30

# gunicorn would put its control socket into the home folder, under one name for all: this folder is the upload API's
# own, so that it never meets the browse API's. systemd makes it (RuntimeDirectory); by hand, a new one is made.
_own_folder = os.environ.get("RUNTIME_DIRECTORY") or tempfile.mkdtemp(prefix="myhealth-upload-")
control_socket = f"{_own_folder}/gunicorn.ctl"


def _check():
    """Check the settings, in a process of its own: workers would keep, after a reload, what the master had imported."""
    return subprocess.run([sys.executable, "-c", "from wsgi.upload import app; app.check()"]).returncode


def on_starting(server):
    """End with a message if a setting is wrong. A reload (HUP) with wrong settings leaves the workers as they are."""
    code = _check()
    if code:
        sys.exit(code)
    reload = server.handle_hup

    def reload_if_right():
        if _check():
            server.log.error("A setting is wrong; the workers go on with the former ones.")
        else:
            reload()

    server.handle_hup = reload_if_right


# The metrics of all workers come together here. It must be set before the application is loaded.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = f"{_own_folder}/metrics"
    shutil.rmtree(f"{_own_folder}/metrics", ignore_errors=True)
    os.mkdir(f"{_own_folder}/metrics")

_master = os.getpid()


@atexit.register
def _leave_nothing():
    """Removes the folder that was made by hand, also where gunicorn could not start; systemd removes its own."""
    if os.getpid() == _master and "RUNTIME_DIRECTORY" not in os.environ:
        shutil.rmtree(_own_folder, ignore_errors=True)


# Workers show that they live by touching a file; in memory, a busy disk cannot make them seem dead.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else _own_folder

# MyHealth itself logs one line a request, with the route in place of the path, which contains names.
accesslog = None
errorlog = "-"
loglevel = "info"
# gunicorn's own lines in the form of MyHealth's (log.format), which only another process may read: see _check.
_form = "import json; from myhealth.common.logs import gunicorn_logging; print(json.dumps(gunicorn_logging()))"
logconfig_dict = json.loads(subprocess.run([sys.executable, "-c", _form], capture_output=True).stdout or "{}")


def post_worker_init(worker):
    """Serve the metrics at an address of their own, if the settings name one."""
    worker.wsgi.started()


def child_exit(server, worker):
    """Forget the connections of a worker that has ended; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
