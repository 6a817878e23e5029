"""Servers as subprocesses: starting them, loading them, and reading what they used."""

import ctypes
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.benchmarks.echo import METHOD
from tests.benchmarks.workload import World

CHOOSE = "/channelchoice.v1.ChannelChoiceService/ChooseChannel"
BATCH = "/channelchoice.v1.ChannelChoiceService/BatchChooseChannel"
STREAM = "/channelchoice.v1.ChannelChoiceService/StreamChooseChannel"
_HEALTH = "/grpc.health.v1.Health/Check"
_TIMEOUT_SECONDS = 60
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a load of counted calls took: server CPU of one call, wall time of all, and each call's time, in seconds."""

    cpu_seconds: float
    wall_seconds: float
    latencies: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """Return the time that this share of the calls stayed below, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that serves; `start_seconds` passed from its process's start to its first answer."""

    pid: int
    channel: grpc.Channel
    method: str
    start_seconds: float
    start_cpu_seconds: float = 0.0
    address: str = ""

    def call(self, request: bytes, method: str = "") -> bytes:
        """Make one call, bytes to bytes."""
        return _caller(self.channel, method or self.method)(request, timeout=_TIMEOUT_SECONDS)

    def load(self, requests: Sequence[bytes], in_flight: int) -> Load:
        """Make all calls, so many at a time, and measure the server's CPU over them."""
        call = _caller(self.channel, self.method)
        waiting, lock = iter(requests), threading.Lock()

        def work(_thread: int) -> list[float]:
            latencies: list[float] = []
            while True:
                with lock:
                    request = next(waiting, None)
                if request is None:
                    return latencies
                began = time.perf_counter()
                call(request, timeout=_TIMEOUT_SECONDS)
                latencies.append(time.perf_counter() - began)

        cpu, wall = cpu_seconds(self.pid), time.perf_counter()
        with ThreadPoolExecutor(in_flight) as pool:
            latencies = tuple(itertools.chain.from_iterable(pool.map(work, range(in_flight))))
        wall = time.perf_counter() - wall
        return Load(cpu_seconds=(cpu_seconds(self.pid) - cpu) / len(requests), wall_seconds=wall, latencies=latencies)

    def stream(self, requests: Sequence[bytes], streams: int) -> float:
        """Send all requests through so many streams at a time, and return the server's CPU seconds of one."""
        call: Callable[[Iterator[bytes]], Iterator[bytes]] = cast(Any, self.channel).stream_stream(STREAM)
        cpu = cpu_seconds(self.pid)
        with ThreadPoolExecutor(streams) as pool:
            counts = list(pool.map(lambda first: len(list(call(iter(requests[first::streams])))), range(streams)))
        if sum(counts) != len(requests):
            raise RuntimeError("a stream ended before all was answered")
        return (cpu_seconds(self.pid) - cpu) / len(requests)

    def steady(self, requests: Sequence[bytes], per_second: float) -> tuple[float, ...]:
        """Make calls at a steady pace whether or not earlier ones are answered; return what each took from when it was due, in seconds."""
        call = cast(Any, self.channel).unary_unary(self.method)
        took: list[float] = []
        pending = []
        began = time.perf_counter()
        for number, request in enumerate(requests):
            due = began + number / per_second
            time.sleep(max(due - time.perf_counter(), 0.0))
            answer = call.future(request, timeout=_TIMEOUT_SECONDS)
            answer.add_done_callback(lambda _, due=due: took.append(time.perf_counter() - due))
            pending.append(answer)
        for answer in pending:
            answer.result()
        while len(took) < len(requests):
            time.sleep(0.001)
        return tuple(took)


def cpu_seconds(pid: int) -> float:
    """Return the CPU, user and system, that a process has used, to the nanosecond (/proc/PID/stat has ticks of 10 ms)."""
    clock = ctypes.c_int()
    problem = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if problem:
        raise OSError(problem, os.strerror(problem))
    return time.clock_gettime(clock.value)


def memory_megabytes(pid: int) -> float:
    """Return the resident memory of a process, in 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kibibytes) * 1024 / 1e6


@contextmanager
def echo(kind: str, answer_bytes: int) -> Iterator[Running]:
    """Run an echo, sync or aio, until the block ends."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.echo", kind, str(answer_bytes)]
    with _process(command, stdout=subprocess.PIPE) as process:
        port = _stream(process.stdout).readline().strip()
        with _channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(_TIMEOUT_SECONDS)
            seconds = time.perf_counter() - began
            yield Running(pid=process.pid, channel=channel, method=METHOD, start_seconds=seconds)


@contextmanager
def service(world: World, database_url: str = "", *, shared_address: str = "") -> Iterator[Running]:
    """Run the service on a world until the block ends, on the world's own database where no other is named.

    With a shared address others may listen on its port too.
    """
    options = {
        "address": shared_address or "127.0.0.1:0",
        "database_url": database_url or f"sqlite:///{world.database}",
        "identity_key_file": world.folder / "identity.key",
        "rules_file": world.rules_file,
        "bundle": world.bundle,
        "clock": "request",
        "log_format": "json",
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    arguments += ["--shared-port"] * bool(shared_address)
    began = time.perf_counter()
    with (
        _process([sys.executable, "-m", "service", *arguments], stderr=subprocess.PIPE) as process,
        _channel(address := _served_address(_stream(process.stderr))) as channel,
    ):
        state = _caller(channel, _HEALTH)(b"", timeout=_TIMEOUT_SECONDS, wait_for_ready=True)
        seconds = time.perf_counter() - began
        status = HealthCheckResponse.FromString(state).status
        if status != HealthCheckResponse.SERVING:
            raise RuntimeError(f"the service started, and its health is {status}")
        yield Running(
            pid=process.pid,
            channel=channel,
            method=CHOOSE,
            start_seconds=seconds,
            start_cpu_seconds=cpu_seconds(process.pid),
            address=address,
        )


@contextmanager
def _process(command: Sequence[str], **streams: int) -> Iterator["subprocess.Popen[str]"]:
    # Modules are compiled once and kept, as where the service is deployed, whatever this process was told.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, text=True, env=environment, **streams) as process:  # type: ignore[call-overload]  # streams are pipes
        try:
            yield process
        finally:
            process.terminate()


def _served_address(log: IO[str]) -> str:
    """Return the address that the service's log names, and go on reading the log so that the service never waits."""
    said = []
    for line in log:
        said.append(line)
        if line.startswith("{") and (entry := json.loads(line))["event"] == "serving":
            threading.Thread(target=log.read, daemon=True).start()
            return str(entry["address"])
    raise RuntimeError(f"the service did not start: {''.join(said)}")


def _caller(channel: grpc.Channel, method: str) -> Callable[..., bytes]:
    """Return a call of a method that neither encodes nor decodes."""
    return cast(Callable[..., bytes], channel.unary_unary(method))


def _channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, options=_OPTIONS)


def _stream(found: IO[str] | None) -> IO[str]:
    assert found is not None
    return found
