"""Give a trained model away: `python -m jaxclf.export --run runs/baseline --to hf --out model`."""

import argparse
import sys
from pathlib import Path

from jaxclf.command import parser_of, run_command
from jaxclf.serving.export import to_hf

FORMATS = {"hf": to_hf}


def main() -> int:
    parser = parser_of(__doc__, epilog=f"hf: {to_hf.__doc__}")
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    print(FORMATS[args.to](args.run, args.out))


if __name__ == "__main__":
    sys.exit(main())
