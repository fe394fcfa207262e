"""The reference model's card: its values in our recipe, and means of a log as it prints them."""

import warnings

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT
from workbench.files import read_json
from workbench.models import find_model
from workbench.runs.parameters import check_parameters, read_settings
from workbench.scoring.cross_encoder import load_cross_encoder
from workbench.training.log import TrainingLog, step_means
from workbench.training.recipe import Recipe, read_stages
from workbench.training.trainer import make_trainer

CARD = read_json(ROOT / "data/reference_card.json")
REFERENCE = check_parameters(read_settings(ROOT / "notebooks/parameters/reference.yaml"))


@pytest.fixture(scope="module")
def arguments(tiny_model, tmp_path_factory):
    """What the reference recipe passes to the trainer."""
    folder = tmp_path_factory.mktemp("reference")
    recipe = Recipe.of(REFERENCE.model_dump())
    model = load_cross_encoder(find_model(str(tiny_model)), recipe.max_length, recipe.seed)
    pairs = pd.DataFrame({"sentence_0": ["a"] * 16, "sentence_1": "b", "label": 1.0})
    trainer = make_trainer(model, folder, pairs, pairs.head(0), recipe, TrainingLog(folder, "s"))
    return trainer.args


def plain(value):
    """Enumerations as their values, objects with a dictionary as that."""
    value = value.to_dict() if hasattr(value, "to_dict") else value
    return getattr(value, "value", value)


@pytest.mark.parametrize("name", CARD["hyperparameters"])
def test_every_hyperparameter_of_the_card(arguments, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is on its way out
        there = hasattr(arguments, name)
        ours = plain(getattr(arguments, name, None))
    if name in CARD["no_longer_there"]:
        assert not there, f"{name} exists (again): compare it"
        assert CARD["no_longer_there"][name]
        return
    assert there, f"{name} is gone: say why in data/reference_card.json"
    card = CARD["hyperparameters"][name]
    if name not in CARD["same_in_another_form"]:
        assert ours == card
    elif name == "accelerator_config":
        assert {key: ours[key] for key in card} == card
    elif name == "local_rank":
        assert (card, ours) == (0, -1)
    else:
        assert ours is None


def test_the_lists_of_exceptions_name_nothing_else():
    names = set(CARD["hyperparameters"])
    gone, form = set(CARD["no_longer_there"]), set(CARD["same_in_another_form"])
    assert len(names) == 119
    assert gone | form <= names
    assert not gone & form
    assert CARD["hyperparameters"]["learning_rate"] == 5e-5


def test_what_else_the_card_states_is_in_the_parameter_file():
    assert REFERENCE.base_model == CARD["base_model"]
    assert REFERENCE.base_revision == CARD["base_revision"]
    assert REFERENCE.max_length == CARD["max_length"]
    sizes = read_stages(REFERENCE.stages)
    assert sizes == (CARD["pairs"][0], 0, 0)
    assert (REFERENCE.dev_share, REFERENCE.vocabulary, REFERENCE.speed) == (0, "keep", "exact")
    text = (ROOT / "notebooks/parameters/reference.yaml").read_text(encoding="utf-8")
    assert set(yaml.safe_load(text)) <= set(REFERENCE.model_dump())


def test_the_card_s_log_is_whole():
    second, third = CARD["logged"]
    assert (len(second["loss"]), len(third["loss"])) == (24, 24)
    ends = [second["loss"][0], second["loss"][-1], third["loss"][0], third["loss"][-1]]
    assert ends == [0.2671, 0.0218, 0.0279, 0.0185]
    steps = -(-CARD["pairs"][1] // 8)
    assert steps == CARD["steps_an_epoch"]
    for one in (second, third):
        assert one["steps"] == [*range(500, 12001, 500)]
        assert one["epochs"] == pytest.approx([step / steps for step in one["steps"]], abs=5e-5)


def a_log(stage, every, losses, steps):
    ends = [every * (n + 1) for n in range(len(losses))]
    return pd.DataFrame(
        {
            "stage": stage,
            "step": ends,
            "steps": steps,
            "loss": losses,
            "epoch": [end / steps for end in ends],
        }
    )


def test_means_of_500_steps_by_hand():
    log = pd.concat(
        [
            a_log("stage 1", 25, [0.7] * 10, 250),
            a_log("stage 2", 250, [0.6, 0.4, 0.3, 0.1, 9.0], 1250),
        ]
    )
    means = step_means(log)
    assert means["stage"].tolist() == ["stage 2", "stage 2"]
    assert means["step"].tolist() == [500, 1000]
    assert means["loss"].tolist() == pytest.approx([0.5, 0.2])
    assert means["epoch"].tolist() == pytest.approx([0.4, 0.8])
    uneven = step_means(a_log("stage 2", 400, [1.0, 0.0], 800))
    assert uneven["loss"].tolist() == pytest.approx([0.8])  # 400 steps of 1, 100 of 0
