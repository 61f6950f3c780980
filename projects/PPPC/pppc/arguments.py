"""The command lines of the tools: a wrong one is one line, as every other wrong input."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from .errors import InputError
from .own_code import import_own


class ToolParser(argparse.ArgumentParser):
    """A parser whose errors are :class:`InputError`, without the usage before them.

    Every tool has --import: the user's own modules are imported before the other arguments are used.
    """

    def __init__(self, description: str, **options):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        self.add_argument(
            "--import",
            dest="imports",
            metavar="MODULE",
            action="append",
            default=[],
            help="a module or file of your own that registers data sets or parts; may be repeated",
        )

    def parse_args(self, *arguments: object, **options: object) -> argparse.Namespace:
        """As argparse's."""
        return self._with_imports(super().parse_args(*arguments, **options))

    def parse_intermixed_args(self, *arguments: object, **options: object) -> argparse.Namespace:
        """As argparse's."""
        return self._with_imports(super().parse_intermixed_args(*arguments, **options))

    @staticmethod
    def _with_imports(parsed: argparse.Namespace) -> argparse.Namespace:
        import_own(vars(parsed).pop("imports"))
        return parsed

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. {self.prog} --help shows what there is")


def whole_number(least: int) -> Callable[[str], int]:
    """The type of an argument: a whole number from ``least`` on."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, {least} or more")
        return number

    return convert


def number_above_0(text: str) -> float:
    """The type of an argument: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0")
    return number
