"""The log: one line an event on stderr, as text or as JSON, with the request that it belongs to."""

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from myhealth.common.request_context import RequestContext, current_request
from myhealth.common.settings import LogSettings, load

OURS = ("myhealth", "wsgi", "cli")


def write_line(line: str) -> None:
    """Write a line to the current `sys.stderr` by one call, so that lines of several processes stay whole. A log that
    cannot be written ends nothing else."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


class LogHandler(logging.Handler):
    """Write the records to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self.format(record))
        except Exception:  # noqa: BLE001 - of any kind: a log that fails must not end what is logged
            self.handleError(record)


class TextFormatter(logging.Formatter):
    """`2026-11-28T04:48:22+0100 WARNING wsgi.common.application There were …`, then the request's facts."""

    def format(self, record: logging.LogRecord) -> str:
        first, newline, rest = super().format(record).partition("\n")
        facts = " ".join(f"{name}={'-' if value is None else value}" for name, value in request_facts().items())
        return f"{first}{facts and f' [{facts}]'}{newline}{rest}"


TEXT, MOMENT = "%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"
JSON: dict[str, Any] = {
    "fmt": "%(levelname)s %(name)s %(message)s",
    "timestamp": "time",
    "rename_fields": {"levelname": "level", "name": "logger"},
}


def gunicorn_logging(level: str = "") -> dict[str, Any]:
    """Return gunicorn's setting `logconfig_dict`: it logs in the form of the settings, from their level or `level` on.
    Raises SettingsError."""
    settings = load().log
    text = {"format": TEXT, "datefmt": MOMENT}
    form = {"()": "pythonjsonlogger.json.JsonFormatter", **JSON} if settings.format == "json" else text
    level = (level or settings.level).upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"myhealth": form},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "myhealth"}},
        "root": {"handlers": []},
        "loggers": {"gunicorn.error": {"level": level, "handlers": ["stderr"], "propagate": False}},
    }


def request_facts() -> dict[str, Any]:
    """Return the facts of the request in which a record is logged."""
    request = current_request.get()
    if request is None:
        return {}
    facts = {"method": request.method, "route": request.route, "user_id": request.user_id, "network": request.network}
    return {**facts, "request_id": request.id}


def configure_logging(settings: LogSettings | None = None, level: str = "") -> None:
    """Log to stderr in the form of the settings. `level`: of our own modules, if not that of the settings; libraries
    log warnings, everything below DEBUG."""
    global _access_line
    settings = settings or LogSettings()
    number = logging.getLevelNamesMapping()[(level or settings.level).upper()]
    root = logging.getLogger()
    handler = next((each for each in root.handlers if isinstance(each, LogHandler)), None)
    if handler is None:
        handler = LogHandler()
        root.addHandler(handler)
    is_json = settings.format == "json"
    handler.setFormatter(_json_formatter() if is_json else TextFormatter(TEXT, MOMENT))
    _access_line = _json_access_line if is_json else _text_access_line
    root.setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(number)


def log_request(log: logging.Logger, request: RequestContext, status: int, ms: float, sent_bytes: int) -> None:
    """Log one answered request at the level INFO. No LogRecord is made: that takes four times as long as the line."""
    if log.isEnabledFor(logging.INFO):
        write_line(_access_line(log.name, request, status, ms, sent_bytes))


def _text_access_line(name: str, request: RequestContext, status: int, ms: float, sent_bytes: int) -> str:
    return (
        f"{time.strftime(MOMENT)} INFO {name} {request.method} {request.route} {status} {ms:.1f} ms"
        f" role={request.role} user_id={request.user_id or '-'} bytes={sent_bytes} request_id={request.id}"
    )


def _json_access_line(name: str, request: RequestContext, status: int, ms: float, sent_bytes: int) -> str:
    line = {
        "level": "INFO", "logger": name, "message": "request", "time": datetime.now(UTC).isoformat(),
        "method": request.method, "route": request.route, "status": status, "ms": round(ms, 1), "role": request.role,
        "user_id": request.user_id, "bytes": sent_bytes, "request_id": request.id,
    }  # fmt: skip
    return json.dumps(line)


_access_line: Callable[[str, RequestContext, int, float, int], str] = _text_access_line


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class RequestJsonFormatter(JsonFormatter):
        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            super().add_fields(log_data, record, message_dict)
            log_data |= request_facts()

    return RequestJsonFormatter(**JSON)
