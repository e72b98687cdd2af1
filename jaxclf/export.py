"""Give a trained model away: `python -m jaxclf.export --run runs/baseline --to hf --out model`."""

import argparse
import sys
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError
from jaxclf.exporters.hf import to_hf
from jaxclf.exporters.onnx.export import INPUT_LAYOUTS, to_onnx
from jaxclf.exporters.stablehlo import PLATFORMS, to_stablehlo

FORMATS = {"hf": to_hf, "onnx": to_onnx, "stablehlo": to_stablehlo}

# Options of one format alone, which its function calls by the same names.
OPTIONS = {
    "hf": (),
    "onnx": ("input", "int8", "data"),
    "stablehlo": ("platforms",),
}


def build_parser() -> CommandParser:
    told = "\n\n".join(f"{name}: {function.__doc__}" for name, function in FORMATS.items())
    parser = CommandParser("export", __doc__, epilog=told)
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--input", choices=INPUT_LAYOUTS, help="onnx: what the graph reads (default: packed)"
    )
    parser.add_argument("--int8", action="store_true", help="onnx: in eight bits; needs --data")
    parser.add_argument(
        "--data", type=Path, help="onnx: a labelled file to measure the loss of F1 on"
    )
    parser.add_argument(
        "--platforms",
        nargs="+",
        choices=PLATFORMS,
        help="stablehlo: what it is to run on (default: this machine's)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), _command, argv)


def _command(args: argparse.Namespace) -> None:
    every = [name for names in OPTIONS.values() for name in names]
    given = {name: value for name in every if (value := getattr(args, name))}
    if odd := [name for name in given if name not in OPTIONS[args.to]]:
        raise ConfigError(f"--{odd[0]} says nothing to --to {args.to}")
    print(FORMATS[args.to](args.run, args.out, **given))


if __name__ == "__main__":
    sys.exit(main())
