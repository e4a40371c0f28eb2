"""The command `aio`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from torch_aio.errors import AioError
from torch_aio.tools.info import info
from torch_aio.version import VERSION

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `aio ARGV`; the exit code: 0, 1 for a failed check, 2 for wrong use or settings."""
    arguments = _parser().parse_args(argv)
    handler: Handler = arguments.handler
    try:
        return handler(arguments)
    except AioError as error:
        print(f"aio: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aio", description="An inference engine for PyTorch.")
    parser.add_argument("--version", action="version", version=f"torch-aio {VERSION}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, text, handler in COMMANDS:
        commands.add_parser(name, help=text, description=text).set_defaults(handler=handler)
    return parser


def _info(_: argparse.Namespace) -> int:
    print(info())
    return 0


COMMANDS: tuple[tuple[str, str, Handler], ...] = (
    ("info", "Show versions, platform, settings and cache.", _info),
)


if __name__ == "__main__":
    sys.exit(main())
