"""What a challenger in the shadow costs the calls: `python -m tests.benchmarks.shadow` times single calls with and without one, in turns.

Two servers on bundles of the same size run at once, one of them with a challenger; one caller asks each of them in turn, so that whatever else the machine does falls on both alike. Times are of
whole calls as the caller sees them.
"""

import argparse
import signal
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from service.gen.channelchoice.v1.channel_choice_service_pb2_grpc import ChannelChoiceServiceStub
from tests.faults.run import Server
from tests.funnels import write_funnel
from tests.service.examples import choose_request

_CHANNELS = ("in_app", "push", "email", "viber", "sms")
_WARM = 50


def measure(folder: Path, calls: int, share: float, pause: float) -> dict[str, NDArray[np.float64]]:
    """Return the milliseconds of each call, by whether there is a challenger."""
    write_funnel(folder / "one", "one")
    write_funnel(folder / "two", "two", {"push": 2.0})
    options = ["--bundle", str(folder / "one")]
    shadow = ["--shadow-bundle", str(folder / "two"), "--shadow-share", str(share)]
    servers = {
        "without": Server(folder, 0, f"sqlite:///{folder / '0.db'}", options),
        "with": Server(folder, 1, f"sqlite:///{folder / '1.db'}", [*options, *shadow]),
    }
    taken: dict[str, list[float]] = {name: [] for name in servers}
    try:
        for server in servers.values():
            server.start()
            server.wait()
        channels = {name: grpc.insecure_channel(server.address) for name, server in servers.items()}
        stubs = {name: ChannelChoiceServiceStub(channel) for name, channel in channels.items()}
        for number in range(_WARM + calls):
            for name, stub in stubs.items():
                request = choose_request(f"r-{number}", customer=f"c-{number}", channels=_CHANNELS)
                began = time.perf_counter()
                stub.ChooseChannel(request, timeout=30)
                taken[name].append(1000 * (time.perf_counter() - began))
                time.sleep(pause)
        for channel in channels.values():
            channel.close()
    finally:
        for server in servers.values():
            server.send(signal.SIGKILL)
    return {name: np.array(found[_WARM:]) for name, found in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.shadow", description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.25, help="shadow_share (default: 0.25)")
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between calls (default: 0.005)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.calls, options.share, options.pause)
    for name, taken in found.items():
        median, late, latest = np.quantile(taken, [0.5, 0.95, 0.99])
        print(
            f"{name + ' a challenger':<22} median {median:6.2f} ms, 95 % within {late:6.2f}, 99 % within {latest:6.2f}"
        )


if __name__ == "__main__":
    main()
