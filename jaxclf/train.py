"""Train an experiment: `python -m jaxclf.train --exp focal_attention`."""

import argparse
import json
import sys
from pathlib import Path

from jaxclf.cli import make_parser, run_command
from jaxclf.decisions.calibration import CALIBRATORS
from jaxclf.decisions.metrics import SELECTION, aggregate
from jaxclf.decisions.provenance import warning
from jaxclf.decisions.thresholds import THRESHOLDS
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Data, Experiment, override, parse_overrides
from jaxclf.experiment.validation import check
from jaxclf.model.heads import HEADS, POOLS
from jaxclf.reports.tables import print_tables, score_tables
from jaxclf.text.augment import AUGMENTERS
from jaxclf.text.sampling import SAMPLERS
from jaxclf.training import distributed
from jaxclf.training.adversarial import ADVERSARIES
from jaxclf.training.averaging import AVERAGES
from jaxclf.training.losses import LOSSES
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train
from jaxclf.training.schedules import SCHEDULES

REGISTRIES = {
    "pool": POOLS,
    "head": HEADS,
    "loss": LOSSES,
    "sampler": SAMPLERS,
    "augment": AUGMENTERS,
    "optim.schedule": SCHEDULES,
    "regularization.adversarial": ADVERSARIES,
    "regularization.weight_averaging": AVERAGES,
    "calibration": CALIBRATORS,
    "threshold": THRESHOLDS,
    "train.metric": dict.fromkeys(SELECTION, aggregate),
}


def main() -> int:
    parser = make_parser(
        __doc__,
        epilog="\n".join(
            [
                f"experiments: {', '.join(catalog.names())}",
                "",
                "keys, and their values where an experiment sets no other (--show prints all):",
                *(f"  {line}" for line in catalog.format_config(Experiment(Data("", "", "")))),
                "",
                "names that a key may take, with their options (loss=focal loss.gamma=3):",
                *(
                    f"  {key}: {', '.join(catalog.signature(*item) for item in registry.items())}"
                    for key, registry in REGISTRIES.items()
                    if key != "train.metric"
                ),
                f"  train.metric: {', '.join(SELECTION)}",
            ]
        ),
    )
    parser.add_argument("--exp", required=True, help="a name, a .py file or a run's config.json")
    parser.add_argument("--out", type=Path, help="the run folder (default: runs/NAME)")
    parser.add_argument("--resume", choices=("auto", "never"), default="auto", help="default: auto")
    parser.add_argument(
        "--show", action="store_true", help="print the resolved experiment and stop"
    )
    parser.add_argument(
        "--show-text",
        action="store_true",
        help="show the texts of the hardest test examples in report.html",
    )
    parser.add_argument("--process-id", type=int, help="number of this process, from 0")
    parser.add_argument("--num-processes", type=int, help="number of processes of the run")
    parser.add_argument("--coordinator-address", help="ADDRESS:PORT of process 0")
    parser.add_argument("override", nargs="*", metavar="key=value", help="such as train.epochs=1")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    experiment = override(catalog.load(args.exp), parse_overrides(args.override))
    if args.show:
        check(experiment, REGISTRIES)
        print("\n".join(catalog.format_config(experiment)))
        return
    tune_malloc()
    process = (args.process_id, args.num_processes, args.coordinator_address)
    if any(option is not None for option in process):
        if None in process:
            raise ConfigError(
                "give --process-id, --num-processes and --coordinator-address together"
            )
        distributed.initialize(*process)
    name = Path(args.exp).parent.name if args.exp.endswith(".json") else Path(args.exp).stem
    out = args.out or Path("runs") / name
    report = train(experiment, out, args.resume, args.show_text)
    if not distributed.is_primary():
        return
    print()
    print_tables(*score_tables(report["test"], "test"))
    print()
    provenance = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    for split in report:
        if said := warning(provenance, split):
            print(f"- {said}")
    for sentence in json.loads((out / "diagnosis.json").read_text(encoding="utf-8")):
        print(f"- {sentence}")
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
