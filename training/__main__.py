"""`python -m training`: logs in, bundles and verdicts out."""

import argparse
import sys
from collections.abc import Callable

from models.errors import ChannelChoiceError
from training.commands import judge, learn, logs
from training.experiments import commands as experiments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Learn from decision logs and prove it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    for group in (logs, learn, judge, experiments):
        group.add_commands(command)
    return parser


def _option_of_log(options: argparse.Namespace) -> str:
    """Return the option that named a command's database."""
    return next(
        (f"--{name}" for name in ("log", "database", "to") if "://" in str(getattr(options, name, ""))), "--log"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 where it refused, with the reason on standard error."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ChannelChoiceError as error:
        # The store names its setting; here the same URL is an option.
        print(str(error).replace("database_url", _option_of_log(options)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
