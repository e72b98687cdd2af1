"""Folders of earlier versions: read with the same probabilities, or refused in one clear line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxclf
from jaxclf.errors import DataError

FOLDERS = sorted(Path(__file__).parent.parent.glob("folder_*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["model-0", "ensemble"])
def test_a_folder_of_an_earlier_version_has_the_same_probabilities(folder, name):
    expected = json.loads((folder / "expected.json").read_text())
    probs = jaxclf.load(folder / name).predict_proba(expected["texts"])
    # Processors differ in the last digits of float32.
    np.testing.assert_allclose(probs, expected["probabilities"][name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "file", "version"),
    [
        ("model-0", "jaxclf.json", {"format": 2}),
        ("ensemble", "ensemble.json", {"format": 1}),
        ("ensemble", "member-0/jaxclf.json", {"format": 2}),
        ("model-0", "jaxclf.json", {"format": 99}),
        ("model-0", "jaxclf.json", {"format": True}),
        ("model-0", "jaxclf.json", {}),
    ],
)
def test_another_format_is_refused_in_one_line(name, file, version, tmp_path):
    folder = shutil.copytree(FOLDERS[-1] / name, tmp_path / name)
    meta = json.loads((folder / file).read_text())
    del meta["format"]
    (folder / file).write_text(json.dumps(meta | version))
    with pytest.raises(DataError) as caught:
        jaxclf.load(folder)
    message = str(caught.value)
    assert str(folder / file) in message
    assert "\n" not in message
    number = version.get("format")
    if number in (1, 2) and number is not True:
        assert "0.1" in message
    if number == 99:
        assert "upgrade jaxclf" in message
