"""Training on a disk without room: exit code 5, and the same numbers once there is room."""

import json

import pytest

from jaxclf.errors import StorageError
from jaxclf.training.run import train


# tensorstore's threads still call the event loop that orbax closed after the failed write.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1_000, 5_000, 40_000, 150_000])
def test_a_run_without_room_is_finished_by_the_same_command(
    finished_run, tmp_path, limit_file_size, limit, caplog
):
    """The limits end the writing of config.json, a figure, tokenizer.json, a checkpoint. No library
    logs a traceback."""
    out = tmp_path / finished_run.folder.name
    limit_file_size(limit)
    with pytest.raises(StorageError, match=rf"^{tmp_path}.*free space") as caught:
        train(finished_run.experiment, out)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert not [record for record in caplog.records if record.exc_info]
    limit_file_size()
    # A score may be NaN, and a tuple of one is a list of the other.
    assert json.dumps(train(finished_run.experiment, out)) == json.dumps(finished_run.report)
