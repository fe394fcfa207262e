"""A small run with prepared data, for the tests of training."""

import shutil

import pytest

from workbench.data.pairs import prepare_data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Its data, made once for a module; `run` is a copy to change."""
    run = tmp_path_factory.mktemp("prepared") / "run"
    prepare_data(run, "data/sample_pairs.csv", max_pairs=100, dev_share=0.2, test_share=0.2)
    return run


@pytest.fixture
def run(prepared, tmp_path):
    """A copy of the prepared run."""
    shutil.copytree(prepared, tmp_path / "run")
    return tmp_path / "run"
