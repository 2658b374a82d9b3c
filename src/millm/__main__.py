"""Entry point of `millm`: a MillmError prints one line to stderr and exits with 1; --debug shows the traceback."""

import sys

from rich.console import Console
from rich.markup import escape

from millm import cli
from millm.errors import MillmError


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        cli.run(arguments)
    except MillmError as error:
        if "--debug" in sys.argv:
            raise
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
