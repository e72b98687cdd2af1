"""Folders with a small random torch encoder, as transformers saves them."""

import pytest
import torch
import transformers
from torch_models import VARIANTS, hf_config, randomize


@pytest.fixture(scope="session")
def variant_folders(tmp_path_factory):
    """A folder with a small random torch encoder of every variant, by variant."""
    folders = {}
    for name in VARIANTS:
        torch.manual_seed(0)
        folders[name] = tmp_path_factory.mktemp(name)
        randomize(transformers.AutoModel.from_config(hf_config(name))).save_pretrained(
            folders[name]
        )
    return folders


@pytest.fixture(scope="session", params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="session")
def variant_folder(variant, variant_folders):
    return variant_folders[variant]
