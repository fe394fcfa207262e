"""The layout of a run folder, which the README describes."""

import pytest

from workbench.files import DamagedError, read_json, write_json
from workbench.run_folder import (
    NotebookError,
    RunFolder,
    WholeLineage,
    read_record,
    set_aside,
    stage_folders,
)

LAYOUT = """
report.html card.json parameters.yaml environment.json status.json inspection.json
training_log.jsonl notebooks data data/manifest.json data/train.parquet figures figures/loss.png
model model/lineage.json model/README.md evaluation evaluation/metrics.json
evaluation/per_query.parquet evaluation/errors.parquet evaluation/candidates.jsonl
evaluation/blend.json evaluation/browser.json stages snapshots checkpoints earlier
"""


def test_files_and_folders_have_the_names_of_the_readme(tmp_path):
    folder = RunFolder(tmp_path)
    paths = {*vars(folder).values(), folder.split("train"), folder.figure("loss")} - {tmp_path}
    assert sorted(str(path.relative_to(tmp_path)) for path in paths) == sorted(LAYOUT.split())


def test_a_folder_is_a_run_from_its_first_file_on(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.is_run()
    write_json(folder.status, {})
    assert folder.is_run()


def test_only_finished_stages_are_listed_in_their_order(tmp_path):
    for number in ("10", "2", "1"):
        (tmp_path / "stages" / number).mkdir(parents=True)
    for number in ("10", "2"):
        write_json(tmp_path / "stages" / number / "lineage.json", {})
    assert [folder.name for folder in stage_folders(tmp_path)] == ["2", "10"]


def test_what_is_replaced_goes_to_earlier(tmp_path):
    set_aside(tmp_path, ["data"])
    assert not RunFolder(tmp_path).earlier.exists()
    for number in range(2):
        (tmp_path / "data").mkdir()
        set_aside(tmp_path, ["data", "model"])
        assert not (tmp_path / "data").exists()
        kept = list(RunFolder(tmp_path).earlier.iterdir())
        assert [[path.name for path in place.iterdir()] for place in kept] == [["data"]] * (
            number + 1
        )


def test_the_error_of_a_notebook_says_where_it_is():
    assert str(NotebookError("03", 5, "x")) == "notebook 03_plot_loss, cell 5: x"
    assert str(NotebookError("03", None, "x")) == "notebook 03_plot_loss: x"


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("lineage.json", {"base": {"kind": "hub"}}),
        ("lineage.json", {"base": None}),
        ("lineage.json", {"number": 0}),
        ("lineage.json", {"base": {"name": "a/b", "kind": "hub", "revision": 1}}),
        ("lineage.json", {"statistics": {"label": 3.5}}),
        ("lineage.json", {"log": [[]]}),
        ("browser.json", {"tokens": {"a": [["a", 0, 1]]}}),
        ("browser.json", {"tokens": {"a": [[1, 0, 1, False]]}}),
        ("browser.json", {"tokens": {"a": [0.5]}}),
    ],
)
def test_damage_within_a_record_is_named(tmp_path, name, damaged):
    base = {"name": "a/b", "kind": "hub", "revision": "c"}
    stage = {"stage": "stage 1", "base": base, "data": {}, "recipe": {}, "hyperparameters": {}}
    stage |= {"steps": 1, "seconds": 1.5, "statistics": {"label": {"mean": 1}}, "log": [{"a": 1}]}
    query = {"query": "q", "other_name": "o", "model": 1, "other": 0.5, "rank": None, "slices": []}
    query |= {"orders": {}, "tokens": {"a": [["a", 0, 1, False]]}}
    file, lineage = tmp_path / name, name == "lineage.json"

    def read(**changed):
        write_json(file, {"stages": [stage | changed]} if lineage else [query | changed])
        return [read_record(file), read_json(file, WholeLineage) if lineage else None]

    assert read()[0]
    with pytest.raises(DamagedError, match=f"{name} is damaged"):
        read(**damaged)
