"""Run cheap models before a strong one, on texts that the cheap ones are uncertain about."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError
from jaxclf.experiment.help import format_config
from jaxclf.experiment.overrides import override
from jaxclf.inference.cascade.config import CascadeConfig

EPILOG = """\
SMALL and LARGE are finished runs or ensembles, from cheap to strong. A network that several of them
share runs once, so LARGE may be an ensemble with SMALL as a member:
  jaxclf ensemble --runs runs/a runs/b runs/c --out runs/blend
  jaxclf cascade --runs runs/a runs/blend --out runs/fast max_metric_loss=0.005

A text exits at the first stage that is confident about every label. Keys and defaults:
KEYS

--rules FILE: {"rules": [{"phrases": ["want to die", "suicid*"]}, …]}. A text with one of the
phrases goes to the final stage; if the rule has a "label", the text gets that label instead.
"""


def make_epilog() -> str:
    keys = [f"  {line}" for line in format_config(CascadeConfig())]
    return EPILOG.replace("KEYS", "\n".join(keys))


def build_parser() -> CommandParser:
    parser = CommandParser("cascade", __doc__, overrides="what exits may cost", epilog=make_epilog)
    parser.add_argument(
        "--runs", nargs="+", metavar="DIR", required=True, help="from cheap to strong"
    )
    parser.add_argument("--rules", type=Path, metavar="FILE", help="phrases that overrule stages")
    parser.add_argument("--out", type=Path, required=True, help="the cascade's folder")
    return parser


def run(args: argparse.Namespace) -> None:
    from jaxclf.files.json_file import write_json
    from jaxclf.inference.cascade import build
    from jaxclf.reports.diagnosis import diagnose
    from jaxclf.reports.html_report import write_page
    from jaxclf.reports.model_card import make_card
    from jaxclf.reports.tables import print_scores, print_tables, stages_table

    runs = [Path(run) for run in args.runs]
    if args.out.resolve() in [run.resolve() for run in runs]:
        raise ConfigError(f"--out {args.out} is one of the runs; give another folder")
    fitted = build.fit_cascade(runs, override(CascadeConfig(), args.overrides), args.rules)
    stages, experiment = stages_table(fitted.summary), fitted.final.experiment
    text = make_card(
        args.out.name,
        build.read_encoders(fitted.networks),
        fitted.report,
        fitted.rule.name,
        experiment.calibration.name,
        {split: len(part.ids) for split, part in fitted.predictions.items()},
        experiment.data.label_descriptions,
        structure=f"{len(fitted.networks)} networks in {len(runs)} stages",
        details=[stages],
    )
    build.write_cascade(args.out, fitted, text)
    decided_by = replace(experiment, threshold=fitted.rule)
    write_json(args.out / "diagnosis.json", diagnose([], fitted.report, decided_by, {}))
    print_scores(fitted.report["test"], "test")
    print_tables(stages)
    print(f"\nreport: {write_page(args.out)}")


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
