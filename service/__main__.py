"""`python -m service`: serve, check that it could, or maintain the database."""

import argparse
import contextlib
import ctypes
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from models.errors import ChannelChoiceError, InvalidInput
from service.settings import PREFIX, Settings, load_settings

_ALLOCATOR = ((-8, 2), (-3, 400_000), (-1, 1_000_000))
"""What glibc's mallopt is told: M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes."""
_GARBAGE = 20_000
"""Objects made and not yet gone after which garbage is looked for."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve channel choices over gRPC.",
        epilog=f"Each setting is also an environment variable {PREFIX}NAME; an option goes over it.",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "maintain"],
        default="serve",
        help="maintain: make partitions ahead and delete what is older than retention_days, then exit (default: serve)",
    )
    parser.add_argument("--check", action="store_true", help="check settings, rules, database and bundle, then exit")
    parser.add_argument(
        "--example", action="store_true", help="send one example request after the start, and print the answer"
    )
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f" (default: {field.default})"
        option = f"--{name.replace('_', '-')}"
        help_text = f"{field.description}{default}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(option, action="store_const", const=True, help=help_text)
        elif name != "mlflow_token":
            parser.add_argument(option, metavar="VALUE", help=help_text)
    return parser


def _keep_little() -> None:
    """Have little memory kept that was freed, where the C library is glibc.

    All threads take it from two arenas: each of them would keep what it once freed, 10 MB and more in all. And the thresholds above which freed memory is given
    back stay where they are; by themselves they rise with what was asked for once, and rounds of large answers then left another 10 MB.
    """
    with contextlib.suppress(OSError, AttributeError):
        tell = ctypes.CDLL(None).mallopt
        for parameter, value in _ALLOCATOR:
            tell(parameter, value)


@contextlib.contextmanager
def no_search_for_garbage() -> Iterator[Callable[[], None]]:
    """Look for no garbage until what is returned is called, which leaves all that was made by then out of the search, or until the end.

    A start makes a hundred thousand objects that stay. Afterwards garbage is looked for less often than usual: a full answer makes thousands of
    objects, which at the usual threshold are looked through several times while they are made.
    """

    def settle() -> None:
        gc.freeze()
        gc.set_threshold(_GARBAGE, 10, 10)
        gc.enable()

    gc.disable()
    try:
        yield settle
    finally:
        gc.enable()


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 after a clean stop, 2 where it cannot start."""
    began = time.perf_counter()
    _keep_little()
    options = vars(_parser().parse_args(arguments))
    command, is_check, is_example = options.pop("command"), options.pop("check"), options.pop("example")
    try:
        settings = load_settings({name: value for name, value in options.items() if value is not None})
        if command == "maintain":
            return _maintain(settings)
        if is_check:
            return _check(settings)
        with no_search_for_garbage() as settle:
            return _serve(settings, began, settle, is_example=is_example)
    except InvalidInput as error:
        print(
            f"{error.subject} refused:",
            *(f"  {violation}" for violation in error.violations),
            sep="\n",
            file=sys.stderr,
        )
    except ChannelChoiceError as error:
        print(error, file=sys.stderr)
    return 2


def _check(settings: Settings) -> int:
    """Open everything that serving needs, say what there is, and close it."""
    from service.app import open_app
    from service.log import set_up_log

    set_up_log(settings)
    with open_app(settings.model_copy(update={"address": "127.0.0.1:0"})) as app:
        bundle = app.bundles.current
        for name, value in settings.public().items():
            print(f"{name} = {value}")
        print(
            f"rules {app.rules.name}: {len(app.rules.channels)} channels, {len(app.rules.prices)} prices, {app.rules.currency}"
        )
        if bundle is not None:
            print(f"bundle {bundle.version}: {bundle.tree_count} trees, {len(bundle.description.columns)} columns")
        elif settings.bundle:
            print(app.bundles.error, file=sys.stderr)
            return 2
        else:
            print("bundle: none, the rule cascade decides")
    print("ready to serve")
    return 0


def _maintain(settings: Settings) -> int:
    from service.maintenance import maintain_all

    print(*maintain_all(settings), sep="\n")
    return 0


def _serve(settings: Settings, began: float, settle: Callable[[], None], *, is_example: bool) -> int:
    # Blocked before any thread starts, then waited for: a handler runs only when the main thread wakes, which no signal ensures.
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    from service.app import open_app
    from service.log import get_logger, set_up_log

    set_up_log(settings)
    log = get_logger("service")
    with open_app(settings) as app:
        settle()
        app.server.start()
        host = settings.address.rpartition(":")[0]
        seconds = time.perf_counter() - began
        log.info("serving", address=f"{host}:{app.server.port}", seconds=round(seconds, 2), **_versions(app))
        if is_example:
            from service.example import ask

            print(ask(f"{host}:{app.server.port}"), flush=True)
            print("Serving until Ctrl-C.", flush=True)
        signal.sigwait(stops)
        log.info("draining", seconds=settings.drain_seconds)
        app.server.stop(settings.drain_seconds)
    log.info("stopped")
    return 0


def _versions(app: Any) -> dict[str, str]:
    bundle = app.bundles.current
    return {"rules": app.rules.name, "bundle": bundle.version if bundle else "none"}


if __name__ == "__main__":
    sys.exit(main())
