"""Train an experiment."""

import argparse
import sys
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.experiment import catalog
from jaxclf.experiment.help import describe_keys, format_config
from jaxclf.experiment.overrides import override
from jaxclf.experiment.validation import check
from jaxclf.terminal import print_text

EXAMPLES = """\
examples:
  jaxclf train --data mine.csv --out runs/mine
  jaxclf train --data a.csv --val b.csv --test c.csv --out runs/three
  jaxclf train --exp focal_attention seed=1 --out runs/seed1

experiments: """


def build_parser() -> CommandParser:
    parser = CommandParser(
        "train",
        __doc__,
        overrides="such as train.epochs=1; all keys are listed below",
        epilog=lambda: f"{EXAMPLES}{', '.join(catalog.names())}\n\n{describe_keys()}",
    )
    text = "a name, a .py file or a run's config.json (default: %(default)s)"
    parser.add_argument("--exp", default=catalog.DEFAULT, help=text)
    parser.add_argument("--out", type=Path, help="the run folder (default: runs/NAME)")
    text = "continue the run in the folder, or require a new folder (default: %(default)s)"
    parser.add_argument("--resume", choices=("auto", "never"), default="auto", help=text)
    parser.add_argument("--print-config", action="store_true", help="print the experiment and stop")
    text = "show the texts of the hardest test examples in report.html"
    parser.add_argument("--include-texts", action="store_true", help=text)
    text = "resume although this changed since the run started, e.g. data.val"
    parser.add_argument("--allow-change", action="append", default=[], metavar="KEY", help=text)
    parser.add_argument("--process-id", type=int, metavar="I", help="this process of N, from 0")
    parser.add_argument("--num-processes", type=int, metavar="N", help="number of processes")
    parser.add_argument("--coordinator-address", metavar="HOST:PORT", help="of process 0")
    text = "a tracker that gets the figures of TensorBoard too (train.track)"
    parser.add_argument("--track", dest="train.track", choices=("wandb", "mlflow"), help=text)
    parser.add_data_files()
    return parser


def run(args: argparse.Namespace) -> None:
    experiment = override(catalog.load(args.exp), args.overrides)
    if args.print_config:
        print_text("\n".join(format_config(check(experiment))))
        return
    # jax is imported only now: help and errors in the experiment do not wait for it.
    from jaxclf.decisions.provenance import reuse_warnings
    from jaxclf.files.json_file import read_json
    from jaxclf.reports.tables import print_scores
    from jaxclf.training import distributed
    from jaxclf.training.memory import tune_malloc
    from jaxclf.training.run import train

    tune_malloc()
    distributed.initialize(args.process_id, args.num_processes, args.coordinator_address)
    exp = Path(args.exp)
    out = args.out or Path("runs") / (exp.parent.name if exp.suffix == ".json" else exp.stem)
    allowed = args.allow_change
    report = train(experiment, out, args.resume, args.include_texts, allow_changes=allowed)
    if distributed.is_primary():
        print_scores(report["test"], "test")
        for sentence in [*reuse_warnings(report["val"], "val"), *read_json(out / "diagnosis.json")]:
            print_text(f"- {sentence}")
        print(f"report: {out / 'report.html'}")


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
