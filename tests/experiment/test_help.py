"""Help and the printed configuration are made from the annotations of the fields."""

import pytest

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.help import describe_keys, description_of, format_config
from jaxclf.experiment.overrides import iter_fields, options_of, override, parse_overrides
from jaxclf.experiment.registries import REGISTRIES, load_registry, signatures

DEFAULTS = Experiment(Data("", "", ""))


@pytest.mark.parametrize("key", dict(iter_fields(DEFAULTS)))
def test_every_key_has_a_description_and_help_shows_it(key):
    assert description_of(DEFAULTS, key)
    (line,) = [line for line in describe_keys().splitlines() if line.startswith(f"  {key} = ")]
    assert line.endswith(description_of(DEFAULTS, key))


@pytest.mark.parametrize("name", catalog.names())
def test_the_printed_configuration_is_a_command_line_of_the_experiment(name):
    experiment = catalog.load(name)
    settings = [line.split("  # ")[0].rstrip() for line in format_config(experiment)]
    words = [setting.replace(" = ", "=", 1) for setting in settings]
    assert override(DEFAULTS, parse_overrides(words)) == experiment


def test_the_printed_configuration_describes_every_key():
    lines = list(format_config(override(DEFAULTS, {"loss": Spec("focal", gamma=3.0)})))
    assert any(line.startswith("loss = focal ") and "# training loss" in line for line in lines)
    assert "loss.gamma = 3.0" in lines


@pytest.mark.parametrize("key", REGISTRIES)
def test_signatures_read_from_the_source_are_those_of_the_functions(key):
    registry = load_registry(key)
    texts = signatures(key)
    assert [text.split()[0] for text in texts] == list(registry)
    if key == "train.metric":
        return
    for name, text in zip(registry, texts, strict=True):
        options = [f"{k}={option.default!r}" for k, option in options_of(registry[name]).items()]
        expected = f"{name} ({', '.join(options)})" if options else name
        assert text.replace("'", '"') == expected.replace("'", '"')
