"""The model card: complete, true to the records, and not to be broken by any text."""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.reports.test_publish import FakeApi, metrics
from workbench.cli import main
from workbench.data.pairs import prepare_data
from workbench.files import read_json, write_json, write_text
from workbench.models import find_model
from workbench.reports.model_card import (
    code,
    public_stages,
    safe_text,
    script_language,
    table,
    write_card,
)
from workbench.reports.page import write_report
from workbench.reports.publish import publish, published_files
from workbench.training.recipe import Recipe
from workbench.training.stages import describe_pairs, fine_tune, record_figures
from workbench.vocabulary.dictionary import ATTRIBUTION

GOLDEN = ROOT / "tests" / "reports" / "golden_card.txt"
EVIL = [
    *("a|b", "`x` ```", "one\ntwo\r\nthree", "<script>alert(1)</script>", "æœ\x8d‚鿴锟斤拷ï¿½"),
    *("[a](b) *c* _d_ $e$ ~f~ \\g", "\u202egnp.exe", "\ud800", "&lt;&amp;", "<!-- -->"),
    *("</details>", "---", "# h", "\u2028", "1. x", "😀"),
]


def render(markdown):
    from nbconvert.filters import markdown2html

    return markdown2html(markdown)


@settings(max_examples=150)
@given(st.lists(st.text(max_size=30), min_size=2, max_size=2))
@example(EVIL[:2])
@example(EVIL[2:4])
@example(EVIL[4:6])
@example(EVIL[8:10])
@example(EVIL[10:12])
@example(EVIL[12:14])
@example(["http://a.b/c?d=e", "www.a.b a@b.c"])
def test_no_text_breaks_a_table(texts):
    page = table(["first", "second"], [[code(text) for text in texts]])
    assert len(page.split("\n")) == 3
    page.encode("utf-8")
    html = render(page)
    assert html.count("<td") == 2
    assert html.count("<code>") == html.count("</code>") == 2
    allowed = {"table", "thead", "tbody", "tr", "th", "td", "code", "br"}
    assert set(re.findall(r"</?([a-z]+)", html)) <= allowed


def test_ordinary_texts_stay_as_they_are_and_long_ones_are_cut():
    assert safe_text("怎么开通会员？2次") == "怎么开通会员？2次"
    assert safe_text("a|b") == "a&#124;b"
    assert safe_text("bundled:all-MiniLM :x: a://b") == "bundled:all-MiniLM &#58;x&#58; a&#58;//b"
    assert safe_text("a_b _c_ www.x.y a/b-c.d") == "a_b &#95;c&#95; www&#46;x.y a/b-c.d"
    assert safe_text("a\r\nb") == "a<br>b"
    assert len(safe_text("长" * 500)) == 200
    assert safe_text("\ud800\u202e") == "\ufffd\ufffd"


def record(stage, number, base, **more):
    """A stage as training records it, with round numbers."""
    sides = {
        name: {"pairs": n, "positives": p, "label_mean": m}
        for name, n, p, m in (
            ("train", 600, 96, 0.16),
            ("dev", 0, 0, None),
            ("test", 150, 24, 0.16),
        )
    }
    rows = {"read": 760, "bad": 10, "usable": 750, "used": 750}
    text, label = {"min": 1, "mean": 11.99, "max": 99}, {"min": 0.0, "mean": 0.16, "max": 1.0}
    data = {"source": "/somewhere/my|pairs.csv", "sha256": "d" * 64, "sides": sides, "rows": rows}
    recipe = {"max_length": 512, "epochs": 1.0, "batch_size": 8, "learning_rate": 5e-5}
    at = {"step": 10, "steps": 25, "epoch": 0.4}
    return {
        "stage": stage,
        "number": number,
        "stages": 2,
        "base": base,
        "parent": base["name"] if number == 1 else "stage 1",
        "data": data,
        "pairs": 200 * number,
        "pairs_sha256": f"{number}" * 64,
        "label_mean": 0.16,
        "statistics": {"sentence_0": text, "sentence_1": text, "label": label},
        "recipe": recipe | {"precision": "auto", "seed": 42, "vocabulary": "keep"},
        "precision": "float32",
        "device": "cpu",
        "loss": "BinaryCrossEntropyLoss",
        "hyperparameters": {"num_train_epochs": 1.0, "learning_rate": 5e-5 * number, "seed": 42},
        "non_default": ["num_train_epochs"],
        "versions": {"Python": "3.11.7", "Sentence Transformers": "6.2.0"},
        "steps": 25 * number,
        "train_loss": 0.4,
        "seconds": 30.0 * number,
        "processor_seconds": 29.0 * number,
        "pairs_per_second": 6.7,
        "log": [
            at | {"loss": 0.5 / number, "pairs": 200},
            at | {"dev_loss": 0.6, "dev_ap": 0.3},
            {"step": 20, "steps": 25, "epoch": 0.8, "loss": 0.4 / number},
        ],
        "activation": "Sigmoid",
        **more,
    }


def base(name, kind, revision, sha256):
    """A model as a lineage records it."""
    found = {"name": name, "kind": kind, "path": "p", "revision": revision, "asked": name}
    return found | {"sha256": sha256 * 64}


def change(run, place=-1, **changes):
    """Change the record of a stage, the last one unless another is named; None removes a value."""
    stages = read_json(run / "model/lineage.json")["stages"]
    found = stages[place] | changes
    stages[place] = {name: value for name, value in found.items() if value is not None}
    write_json(run / "model/lineage.json", {"stages": stages})


def estimate(mean):
    return {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}


@pytest.fixture
def run(tmp_path):
    """A run as the notebooks would leave it, of fixed records."""
    folder = tmp_path / "golden|run"
    (folder / "data").mkdir(parents=True)
    hub = base("cross-encoder/ms-marco-MiniLM-L6-v2", "hub", "c5ee24c", "b")
    stages = [record("stage 1", 1, hub)]
    stages.append(record("stage 2", 2, base("runs/golden/stages/1", "run", "", "c")))
    write_json(folder / "model/lineage.json", {"schema": 1, "stages": stages})
    means = {"model": 0.45, "base": 0.2, "stage 1": 0.3, "ngram_regression": 0.7}
    rows = [
        {"scorer": name, "ndcg@10": estimate(value), "mrr@10": estimate(value - 0.01)}
        for name, value in means.items()
    ]
    gaps = {
        name: estimate(0.45 - mean) | {"p": 0.001, "p_holm": 0.003}
        for name, mean in means.items()
        if name != "model"
    }
    metrics = {"schema": 1, "ties": "worst", "interval": "95 % bootstrap", "resamples": 10_000}
    metrics |= {"queries": 80, "candidates": 2400, "pairs": 0, "queries_all_tied": {}}
    metrics |= {"rows": rows, "model_minus": gaps, "suspect_negatives": {"same positive": 3}}
    metrics |= {"seen": 0, "recipe": {"source": "/somewhere/lists.jsonl"}}
    write_json(folder / "evaluation/metrics.json", metrics)
    inspection = {
        "tokens": {"unk_share": 0.74},
        "contradictions": {"rows": 4, "share": 0.01},
        "texts": {"with_unk_share": 0.99, "only_unk_share": 0.2, "collapsed_share": 0.15},
        "verdict": {"colour": "red"},
    }
    write_json(folder / "inspection.json", inspection)
    frame = pd.DataFrame(
        {
            "sentence_0": ["怎么|开通", "`二`", "三\n行", "<b>四</b>", "五"],
            "sentence_1": ["如何", "乱码ï¿½", "x", "y", "z"],
            "label": [1.0, 0.0, 0.0, 0.0, 1.0],
        }
    )
    frame.to_parquet(folder / "data/train.parquet")
    return folder


def test_the_card_is_the_golden_one(run):
    """UPDATE_GOLDEN=1 writes the file again; look at the difference before committing it."""
    record_figures(run)
    text = write_card(run, language="zh", license="apache-2.0", dataset="me/pairs").read_text(
        "utf-8"
    )
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_the_head_is_what_the_hub_reads(run):
    write_card(run, language="zh", license="apache-2.0", dataset="me/pairs")
    data = ModelCard.load(run / "model/README.md").data
    assert (data.language, data.license, data.datasets) == ("zh", "apache-2.0", ["me/pairs"])
    assert data.base_model == "cross-encoder/ms-marco-MiniLM-L6-v2"
    assert (data.pipeline_tag, data.library_name) == ("text-ranking", "sentence-transformers")
    assert len(data.tags) == len(set(data.tags))
    assert {"dataset_size:200", "dataset_size:400", "loss:BinaryCrossEntropyLoss"} <= set(data.tags)
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"ndcg@10": 0.45, "mrr@10": 0.44}
    assert data.eval_results[0].dataset_name == "lists.jsonl"


SECTIONS = """
## Model Details
### Model Description
### Model Sources
## Usage
### Direct Usage (Sentence Transformers)
### Out-of-Scope Use
## Bias, Risks and Limitations
### Recommendations
## Training Details
### Training Dataset
### Training Hyperparameters
#### Non-Default Hyperparameters
#### All Hyperparameters
### Training Logs
### Framework Versions
## Citation
"""


def test_the_sections_of_the_reference_card_come_in_its_order(run):
    lines = write_card(run).read_text("utf-8").splitlines()
    wanted = SECTIONS.split("\n")[1:-1]
    assert [line for line in lines if line in wanted] == wanted
    assert {"## Evaluation", "### Lineage", "### Intended Use", "### Training Time"} <= {*lines}


@pytest.mark.parametrize(
    ("model", "unclear", "queries", "use"),
    [
        (0.8, (), 80, "the test below. **The model ranks better than every baseline here"),
        (0.8, ("base",), 80, "the test below. **The model and `base` cannot be told apart"),
        (0.8, ("base",), 80, "many queries.** It ranks better than `ngram_regression`"),
        (0.45, (), 80, "None is shown. **The model ranks worse than `ngram_regression`"),
        (0.8, (), 9, "None is shown. **Too few queries to say anything"),
    ],
)
def test_the_use_is_what_the_verdict_of_the_report_allows(run, model, unclear, queries, use):
    """Ahead of the best of the others is not ahead of all: a weaker one may be less certain."""
    metrics = read_json(run / "evaluation/metrics.json")
    for row in metrics["rows"][1:]:
        gap = estimate(model - row["ndcg@10"]["mean"]) | {"p_holm": 0.003}
        metrics["model_minus"][row["scorer"]] = gap
    for name in unclear:
        metrics["model_minus"][name]["p_holm"] = 0.09
    metrics["rows"][0]["ndcg@10"] = estimate(model)
    write_json(run / "evaluation/metrics.json", metrics | {"queries": queries})
    text = write_card(run).read_text("utf-8")
    assert use in text
    assert ("Do not use it in place" in text) == ("ranks worse" in use)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model):
    """Runs of the tiny model on characters it does not know, with and without a repair."""
    top = tmp_path_factory.mktemp("trained")
    pairs = pd.DataFrame({"sentence_0": ["龘靐", "齉爩"] * 30, "sentence_1": "麤", "label": 0.0})
    pairs.loc[::3, "label"] = 1.0
    pairs["sentence_1"] += [chr(0x4E00 + number) for number in range(60)]
    pairs.to_csv(top / "pairs.csv", index=False)
    for vocabulary in ("keep", "extend"):
        prepare_data(top / vocabulary, top / "pairs.csv", dev_share=0, test_share=0.0)
        recipe = Recipe(max_length=9999, vocabulary=vocabulary, batch_size=30)
        fine_tune(top / vocabulary, find_model(str(tiny_model)), recipe)
        write_json(top / vocabulary / "inspection.json", {"verdict": {"colour": "red"}})
    return top


@pytest.mark.parametrize(("vocabulary", "low", "high"), [("keep", 50, 100), ("extend", 0, 0)])
def test_a_card_speaks_of_its_model_and_not_of_the_base_or_the_request(
    trained, vocabulary, low, high
):
    """The inspection is that of the base, and a model cuts no later than its positions end."""
    folder = trained / vocabulary
    text = write_card(folder).read_text("utf-8")
    (found,) = re.findall(r"\*\*(.*)% of the tokens of the training pairs are unknown", text)
    assert low <= float(found) <= high
    assert ("Give the base a vocabulary" in text) == (vocabulary == "keep")
    positions = read_json(folder / "model/config.json")["max_position_embeddings"]
    assert f"Length:** {positions} tokens" in text
    assert f"pairs of more than {positions} tokens are cut" in text
    assert f"up to {positions} tokens" in write_report(folder).read_text("utf-8")


def test_a_run_of_a_base_in_a_local_folder_can_be_published_without_its_path(
    trained, tiny_model, capsys
):
    """The base is in a folder with a space in its name; the report shows the path of it."""
    run = shutil.copytree(trained / "extend", trained / "local")
    where = "/srv/my models & more/tiny"
    text = (run / "model/lineage.json").read_text("utf-8")
    assert str(tiny_model) in text
    (run / "model/lineage.json").write_text(text.replace(str(tiny_model), where), "utf-8")
    write_text(run / "parameters.yaml", f"base_model: {where}\nteacher: /srv/teacher\n")
    write_json(run / "evaluation/metrics.json", metrics())
    assert str(trained) not in write_card(run, license="mit").read_text("utf-8")
    write_report(run)
    assert main(["publish", str(run), "me/mine", "--dry-run"]) == 0
    assert "nothing was found" in capsys.readouterr().out
    publish(published_files(run), "me/mine", api=(api := FakeApi()))
    (sent,) = api.commits
    card = (run / "model/README.md").read_text("utf-8")
    assert "# local: CrossEncoder based on tiny &#40;a local folder&#41;" in card
    assert "| stage 1 | <code>tiny &#40;a local folder&#41;</code> |" in card
    assert "base_model" not in card.split("---")[1]  # the Hub takes names on the Hub alone
    page, stages = sent["report.html"].decode(), json.loads(sent["lineage.json"])["stages"]
    for published in (card, page, json.dumps(stages)):
        assert not [one for one in ("/srv", "my models", str(trained)) if one in published]
    assert "<td>teacher</td>" in page
    assert stages[0]["base"]["name"] == stages[0]["parent"] == "tiny (a local folder)"
    assert find_model(str(run)).path == run / "model"


@pytest.mark.parametrize(
    ("activation", "gives", "wanted"),
    [
        ("Sigmoid", "probabilities", "Identity"),
        ("Identity", "logits", "Sigmoid"),
        ("Tanh", "the `Tanh` of the model's logit", "Identity"),
    ],
)
def test_the_card_says_what_predict_gives_and_how_to_get_the_other(run, activation, gives, wanted):
    change(run, activation=activation)
    text = write_card(run).read_text("utf-8")
    assert f"`predict` gives {gives}" in text
    assert f"`activation_fn=torch.nn.{wanted}()`" in text


@pytest.mark.parametrize(
    ("repair", "license", "words"),
    [
        (
            {"vocabulary": "words", "new_embeddings": "dictionary", "dictionary": ATTRIBUTION},
            "apache-2.0",
            [
                ATTRIBUTION,
                "Its words became tokens",
                "start from its glosses",
                "only under CC BY-SA 4.0",
                "**The licence stated above, apache-2.0, is another one",
                "- **License:** apache-2.0 (see Dictionary below)",
            ],
        ),
        (
            {"vocabulary": "extend", "new_embeddings": "dictionary", "dictionary": ATTRIBUTION},
            "cc-by-sa-4.0",
            ["Its words did not become tokens", "start from its glosses"],
        ),
        (
            {"vocabulary": "words", "new_embeddings": "random", "dictionary": "/home/me/my|ja.tsv"},
            "",
            ["<code>my&#124;ja.tsv</code>", "do not start from its glosses", "is not recorded"],
        ),
    ],
)
def test_the_card_names_the_dictionary_and_what_its_licence_asks(run, repair, license, words):
    change(run, 0, vocabulary=repair | {"added_tokens": 1234})
    text = " ".join(write_card(run, license=license).read_text("utf-8").split())
    assert "1,234 tokens were added" in text
    assert [one for one in words if one not in text] == []
    assert ("is another one" in text) == (license == "apache-2.0")
    assert "/home/me" not in text


def test_without_a_dictionary_the_card_speaks_of_none(run):
    assert "ictionary" not in write_card(run).read_text("utf-8").split("### Recommendations")[0]


def test_the_language_is_that_of_the_script_unless_it_is_given(run):
    assert "- **Language:** zh\n" in write_card(run).read_text("utf-8")
    assert ModelCard.load(run / "model/README.md").data.language == "zh"
    assert "- **Language:** yue\n" in write_card(run, language="yue").read_text("utf-8")
    assert script_language(["こんにちは世界"]) == "ja"
    assert script_language(["안녕하세요"]) == "ko"
    assert script_language(["how do I pay"]) == script_language([]) == script_language(["1?"]) == ""


def test_the_card_says_when_dev_was_looked_at_and_which_model_was_kept(run):
    change(
        run,
        hyperparameters={"eval_strategy": "steps", "eval_steps": 20},
        non_default=["eval_strategy", "eval_steps"],
        kept={"model": "best", "step": 20, "dev_ap": 0.75, "after": 3},
        dev={"dev_pairs": 200, "dev_positives": 60},
        planned_steps=50,
    )
    text = write_card(run).read_text("utf-8")
    assert "- `eval_strategy`: steps\n- `eval_steps`: 20\n" in text
    assert "* Saved is the model of step 20" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("card.json", {"card_samples": "x"}),
        ("inspection.json", {"contradictions": 3, "verdict": {}}),
        ("evaluation/metrics.json", {"rows": [{"scorer": "model"}]}),
    ],
)
def test_a_record_that_lacks_something_is_no_traceback(run, capsys, name, content):
    path = run / name
    write_json(path, (read_json(path) if path.is_file() else {}) | content)
    assert main(["card", str(run)]) == 2
    assert "nothing was started:" in capsys.readouterr().err


def test_sections_without_a_record_say_so(run):
    for stage in (0, 1):
        change(run, stage, log=None, statistics=None, versions=None, processor_seconds=None)
    for name in ("evaluation/metrics.json", "inspection.json", "data/train.parquet"):
        (run / name).unlink()
    text = write_card(run).read_text("utf-8")
    words = "None is shown: the model has not been evaluated|The vocabulary was not inspected yet"
    words += "|Not evaluated yet|Evaluate it|Samples: not at hand|No log was recorded|Not recorded"
    assert [one for one in f"{words}|unknown s of CPU".split("|") if one not in text] == []


def test_a_long_log_becomes_means(run):
    rows = [{"step": 10 * n, "steps": 1000, "epoch": n / 100, "loss": 0.5} for n in range(1, 101)]
    change(run, log=rows)
    text = write_card(run).read_text("utf-8")
    assert "| Epoch | Step | Training Loss &#40;mean of 500 steps&#41; |" in text
    assert "| 1.0000 | 1,000 | 0.5000 |" in text


def test_a_long_log_of_less_than_500_steps_stays_as_it_is(run):
    """As with a dev score at each step; there is no mean of 500 steps to print in its place."""
    rows = [{"step": n, "steps": 100, "epoch": n / 100, "dev_ap": 0.5} for n in range(1, 101)]
    rows += [{"step": 50, "steps": 100, "epoch": 0.5, "loss": 0.25}]
    change(run, log=rows)
    text = write_card(run).read_text("utf-8")
    assert "| Epoch | Step | Training Loss | Dev AP |" in text
    assert "| 0.5000 | 50 | 0.2500 | 0.5000 |" in text
    assert "| 1.0000 | 100 | - | 0.5000 |" in text


def test_samples_are_held_back_and_the_choice_is_remembered(run):
    assert "怎么" in write_card(run).read_text("utf-8")
    text = write_card(run, card_samples=0).read_text("utf-8")
    assert "Samples: held back" in text
    assert "乱码" not in text
    assert "乱码" not in write_card(run).read_text("utf-8")  # as after the evaluation
    with pytest.raises(TypeError, match="no setting lang"):
        write_card(run, lang="zh")


def test_the_command_writes_the_card_anew(run, capsys):
    assert main(["card", str(run), "--language", "zh", "--samples", "1"]) == 0
    assert ModelCard.load(run / "model/README.md").data.language == "zh"
    assert read_json(run / "card.json")["card_samples"] == 1
    assert main(["card", str(run.parent)]) == 2
    assert "has no model yet" in capsys.readouterr().err


def test_the_lineage_takes_up_how_each_stage_ranked(run):
    record_figures(run)
    stages = read_json(run / "model/lineage.json")["stages"]
    assert [stage["evaluation"]["ndcg@10"]["mean"] for stage in stages] == [0.3, 0.45]
    assert stages[1]["evaluation"]["ties"] == "worst"


def test_statistics_are_over_all_rows():
    pairs = pd.DataFrame({"sentence_0": ["a"] * 1500 + ["bbb"], "sentence_1": "cc", "label": 0.0})
    found = describe_pairs(pairs)
    assert found["sentence_0"] == {"min": 1, "mean": pytest.approx(1503 / 1501), "max": 3}
    assert found["label"] == {"min": 0.0, "mean": 0.0, "max": 0.0}


def test_a_path_is_its_last_name_wherever_a_record_has_it():
    local = {"kind": "folder", "name": "models/own", "asked": "models/own", "path": "models/own"}
    recipe = {"dictionary": "/home/me/my words.tsv", "teacher": "~/runs/best", "batch_size": 8}
    recipe["trainer_arguments"] = {"logging": ["/srv/a b/c"], "note": "see /srv/x/y.txt, a/b"}
    (found,) = public_stages([{"base": local, "parent": "models/own", "recipe": recipe}])
    assert {*found["base"].values(), found["parent"]} == {"folder", "own (a local folder)"}
    assert (found["recipe"]["dictionary"], found["recipe"]["teacher"]) == ("my words.tsv", "best")
    assert found["recipe"]["trainer_arguments"] == {"logging": ["c"], "note": "see y.txt, a/b"}
    hub = {"base": {"kind": "hub", "name": "owner/name"}, "parent": "owner/name", "log": [{"n": 1}]}
    assert public_stages([hub]) == [hub]


def test_the_usage_code_runs_without_the_workbench(trained, tmp_path):
    """The card's own code, on the model of a run, in a process that cannot see this package."""
    text = write_card(trained / "keep").read_text("utf-8")
    (usage,) = re.findall(r"```python\n(.*?)```", text, re.S)
    model = shutil.copytree(trained / "keep" / "model", tmp_path / "elsewhere")
    script = tmp_path / "usage.py"
    script.write_text(
        "import sys\nsys.modules['workbench'] = None  # importing it would fail\n"
        + usage.replace("path/to/model", str(model))
        + "assert scores.shape == (5,)\nassert len(ranks) == 5\n"
        + "assert sorted(r['corpus_id'] for r in ranks) == [0, 1, 2, 3, 4]\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-I", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "(5,)" in done.stdout
