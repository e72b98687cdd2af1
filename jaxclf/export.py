"""Write a trained model for other libraries and runtimes."""

import argparse
import sys
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError

EPILOG = """\
hf: a Hugging Face folder. With cls pooling and the native head, the model opens in
  AutoModelForSequenceClassification; otherwise it needs trust_remote_code=True there.
onnx: an ONNX graph for onnxruntime. Needs the extra jaxclf[onnx].
stablehlo: a StableHLO program with its parameters. Needs the extra jaxclf[stablehlo].

The exported model's probabilities are compared with the run's before the folder is created.
"""

# Format -> the options that apply to it, which its function takes under the same names.
FORMATS = {"hf": (), "onnx": ("input", "int8", "data"), "stablehlo": ("platforms",)}


def build_parser() -> CommandParser:
    parser = CommandParser("export", __doc__, epilog=EPILOG)
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--input", choices=("packed", "padded"), help="onnx: layout of the inputs (default: packed)"
    )
    parser.add_argument("--int8", action="store_true", help="onnx: quantize to int8; needs --data")
    parser.add_argument("--data", type=Path, help="onnx: labeled file to measure the loss of F1 on")
    parser.add_argument(
        "--platforms",
        nargs="+",
        choices=("cpu", "cuda"),
        help="stablehlo: target platforms (default: this machine's)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    names = [name for options in FORMATS.values() for name in options]
    options = {name: value for name in names if (value := getattr(args, name))}
    if unused := [name for name in options if name not in FORMATS[args.to]]:
        raise ConfigError(f"--{unused[0]} does not apply to --to {args.to}")
    # jax is imported only now: help and wrong arguments do not wait for it.
    from jaxclf.exporters.hf import to_hf
    from jaxclf.exporters.onnx.export import to_onnx
    from jaxclf.exporters.stablehlo import to_stablehlo

    export = {"hf": to_hf, "onnx": to_onnx, "stablehlo": to_stablehlo}[args.to]
    print(export(args.run, args.out, **options))


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
