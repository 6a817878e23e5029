"""The service in a process of its own, started as anybody would start it, for commands and tests that speak to it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from models.errors import LogUnusable

_STOP_SECONDS = 60


@contextmanager
def serving(options: Sequence[str], log_path: Path) -> Iterator[str]:
    """Serve on a free port of loopback, with a clock that moves by requests, give the address, and stop at the end; what it logs goes to a file.

    Raises
    ------
    LogUnusable: it did not start, or serves without the bundle that the options name.
    """
    command = [
        sys.executable,
        "-m",
        "service",
        "--address",
        "127.0.0.1:0",
        "--clock",
        "request",
        "--log-format",
        "json",
    ]
    reader: threading.Thread | None = None
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(  # noqa: S603  # our own module
            [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            address = _address(process, log_path, needs_bundle="--bundle" in options)
            reader = threading.Thread(target=_copy_lines, args=(process, log), daemon=True)
            reader.start()
            yield address
        finally:
            process.terminate()
            process.wait(timeout=_STOP_SECONDS)
            if reader is not None:
                reader.join()


def _copy_lines(process: "subprocess.Popen[str]", log: TextIO) -> None:
    """Keep what the server logs while it serves, so that it never waits for somebody to read."""
    for line in process.stderr or ():
        log.write(line)


def _address(process: "subprocess.Popen[str]", log_path: Path, *, needs_bundle: bool) -> str:
    lines: list[str] = []
    for line in process.stderr or ():
        lines.append(line)
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") == "serving":
            if needs_bundle and entry["bundle"] == "none":
                raise LogUnusable(f"the server serves without the bundle: {''.join(lines)}")
            return str(entry["address"])
    raise LogUnusable(f"the server did not start, see {log_path}: {''.join(lines)}")
