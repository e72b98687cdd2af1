"""The console command: one table of commands, `key=value` anywhere, quiet or verbose logs."""

import logging
import subprocess
import sys

import pytest

from jaxclf import cli
from jaxclf.cli import COMMANDS, CommandParser, load_parser, run_command

# Runs the help of every command in two ways, and lists the heavy imports in the end.
HELP = """
import runpy, sys
from jaxclf import cli

def run_module(command):
    sys.argv = [command, "--help"]
    runpy.run_module(f"jaxclf.{command}", run_name="__main__")

runs = [lambda: cli.main(["--help"])]
for name in cli.COMMANDS:
    runs += [lambda name=name: cli.main([name, "--help"]), lambda name=name: run_module(name)]
for run in runs:
    try:
        run()
    except SystemExit as end:
        assert end.code == 0
heavy = "jax flax optax numpy scipy sklearn matplotlib transformers optuna rich".split()
assert not set(heavy) & set(sys.modules), set(heavy) & set(sys.modules)
"""
WORDS = ["optim.lr=1e-4", "pool=mean", "data.labels=a,b"]
OVERRIDES = {"optim.lr": 1e-4, "pool": "mean", "data.labels": "a,b"}
# Arguments of each command that takes overrides, in parts that must stay together.
ARGUMENTS = {
    "train": [["--exp", "baseline"], ["--out", "runs/a=b"], ["--print-config"]],
    "tune": [["--exp", "baseline"], ["--trials", "3"], ["--worker"]],
    "ensemble": [["--runs", "A", "B"], ["--out", "C"]],
    "evaluate": [["--run", "A"], ["--quiet"]],
    "compare": [["A", "B"], ["--split", "val"], ["C"]],
    "audit": [["--exp", "baseline"], ["--folds", "3"], ["--out", "A"]],
    "cascade": [["--runs", "A", "B"], ["--out", "C"]],
    "check": [["--exp", "baseline"], ["--out", "a.html"]],
    "curve": [["--exp", "baseline"], ["--shares", "0.5", "1"], ["--out", "A"]],
}


def test_the_table_of_arguments_has_every_command_with_overrides():
    assert set(ARGUMENTS) == {name for name in COMMANDS if load_parser(name).takes_overrides}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_overrides_are_accepted_anywhere(command):
    parts = ARGUMENTS[command]
    parser = load_parser(command)
    expected = parser.parse([word for part in parts for word in part])
    assert expected.overrides == {}
    expected.overrides, expected.override_words = OVERRIDES, WORDS
    for position in range(len(parts) + 1):
        argv = [*parts[:position], WORDS, *parts[position:]]
        assert parser.parse([word for part in argv for word in part]) == expected
    scattered = [word for part in zip(WORDS, parts, strict=False) for word in (part[0], *part[1])]
    rest = [*WORDS[len(parts) :], *(word for part in parts[len(WORDS) :] for word in part)]
    assert parser.parse([*scattered, *rest]) == expected


def test_an_override_between_the_values_of_an_option_is_taken_out():
    args = load_parser("ensemble").parse(["--runs", "A", "seed=1", "B", "--out", "C"])
    assert (args.runs, args.overrides) == (["A", "B"], {"seed": 1})


def test_texts_stay_texts_wherever_they_stand():
    args = load_parser("predict").parse(["a=b", "--run", "A", "c", "--explain", "d=e"])
    assert (args.texts, args.run, args.explain) == (["a=b", "c", "d=e"], "A", True)


def test_a_value_of_an_option_may_hold_an_equals_sign():
    args = load_parser("train").parse(["--exp", "x", "--out", "lr=1", "--resume=never"])
    assert (str(args.out), args.resume, args.overrides) == ("lr=1", "never", {})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_described(command):
    parser = load_parser(command)
    assert parser.prog == f"jaxclf {command}"
    assert parser.description
    text = parser.format_help()
    assert all(option in text for option in ("--debug", "--quiet", "--verbose"))
    assert ("key=value" in text) == parser.takes_overrides
    assert all(action.help for action in parser._actions)


def test_main_runs_a_command(capsys):
    assert cli.main(["train", "--exp", "baselin"]) == 2
    assert "did you mean 'baseline'?" in capsys.readouterr().err


def test_main_without_a_command_lists_the_commands(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and about in text for name, about in COMMANDS.items())


def test_an_unknown_command_gets_the_nearest(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["trian"])
    assert "'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.split() == ["jaxclf", "0.2.0"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_names_commands_and_options(capsys, shell):
    assert cli.main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(f"    {name}) words=" in script for name in COMMANDS)
    assert "--print-config" in script


def test_bash_completes_options():
    script = cli.completion_script("bash")
    test = 'COMP_WORDS=(jaxclf serve --po); COMP_CWORD=2; _jaxclf; echo "${COMPREPLY[@]}"'
    answer = subprocess.run(["bash", "-c", f"{script}\n{test}"], capture_output=True, text=True)
    assert (answer.stdout, answer.stderr) == ("--port\n", "")


def log_lines(capsys, *argv):
    root_handler = logging.StreamHandler()  # such as a library installs

    def command(args):
        logging.getLogger().addHandler(root_handler)
        log = logging.getLogger("jaxclf.part")
        log.debug("detail")
        for _ in range(2):
            log.info("progress")
            log.info("note: once")
            log.warning("careful")

    assert run_command(CommandParser("train", "A command."), command, argv) == 0
    logging.getLogger().removeHandler(root_handler)
    return capsys.readouterr().err.splitlines()


def test_a_repeated_warning_or_note_is_printed_once(capsys):
    lines = ["progress", "note: once", "warning: careful", "progress"]
    assert log_lines(capsys) == lines
    assert log_lines(capsys, "--verbose") == ["detail", *lines]
    assert log_lines(capsys, "--quiet") == ["warning: careful"]
    assert not logging.getLogger("jaxclf").handlers


def test_choices_of_export_are_those_of_the_exporters():
    from jaxclf.exporters.onnx.export import INPUT_LAYOUTS
    from jaxclf.exporters.stablehlo import PLATFORMS

    choices = {action.dest: action.choices for action in load_parser("export")._actions}
    assert choices["input"] == tuple(INPUT_LAYOUTS)
    assert choices["platforms"] == PLATFORMS


def test_help_of_every_command_imports_nothing_heavy():
    words = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", HELP]
    result = subprocess.run(words, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    for command in COMMANDS:
        assert result.stdout.count(f"usage: jaxclf {command} ") == 2


@pytest.mark.slow
def test_the_module_is_the_console_command():
    words = [sys.executable, "-m", "jaxclf", "--version"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == "jaxclf 0.2.0\n"


@pytest.mark.slow
def test_a_reader_that_leaves_is_not_an_error():
    command = f"{sys.executable} -m jaxclf train --exp baseline --print-config | true"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert result.stderr == ""
