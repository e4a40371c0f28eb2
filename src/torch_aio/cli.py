"""The command `aio`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch_aio.errors import AioError
from torch_aio.tools.explain import explanation
from torch_aio.tools.info import info
from torch_aio.tools.target import load
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
    for name, text, handler, arguments in COMMANDS:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(handler=handler)
        for argument, options in arguments.items():
            command.add_argument(argument, **options)
    return parser


def _info(_: argparse.Namespace) -> int:
    print(info())
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    model, inputs = load(arguments.target)
    found = explanation(model, *inputs)
    print("\n".join(found.names) if arguments.names else found)
    return 0


Arguments = dict[str, dict[str, Any]]
_TARGET: Arguments = {
    "target": {"help": "FILE.py:FUNCTION or MODULE:FUNCTION that returns (model, inputs)"}
}
_NAMES: Arguments = {
    "--names": {"action": "store_true", "help": "only what filters call the operators"}
}
COMMANDS: tuple[tuple[str, str, Handler, Arguments], ...] = (
    ("info", "Show versions, platform, settings and cache.", _info, {}),
    ("explain", "Show what becomes of each node of a model.", _explain, {**_TARGET, **_NAMES}),
)


if __name__ == "__main__":
    sys.exit(main())
