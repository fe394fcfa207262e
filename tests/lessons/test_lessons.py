"""The course: what is committed is what the sources give, and every answer is judged rightly."""

import contextlib
import hashlib
import importlib
import inspect
import io
import json
import re
import runpy
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.lessons.figures import figures
from workbench.data.build_lists import build_test
from workbench.data.lists import write_candidates
from workbench.data.pairs import prepare_data, read_split
from workbench.files import RequestError, read_json
from workbench.lessons import EXERCISES, check, examine, recorded, stale
from workbench.lessons.checking import _equal, find

FOLDER = ROOT / "notebooks/lessons"
making = SimpleNamespace(**runpy.run_path(str(FOLDER / "make.py")))
SOURCES = sorted((FOLDER / "source").glob("*.py"))
NAMES = [source.stem for source in SOURCES]
CHECKED = [name for name in NAMES if (FOLDER / f"checks/{name}.py").is_file()]


@pytest.fixture(params=SOURCES, ids=NAMES)
def source(request):
    return request.param


@pytest.fixture(params=CHECKED)
def numbers(request):
    """The exercises of a lesson."""
    lesson = request.param.rpartition("_")[2]
    find(f"{lesson}.1")
    return [number for number in EXERCISES if number.split(".")[0] == lesson]


def wrong_answers(number):
    lesson = importlib.import_module(f"tests.lessons.wrong.lesson_{number.split('.')[0]}")
    prefix = f"of_{number.replace('.', '_')}_"
    return [function for name, function in vars(lesson).items() if name.startswith(prefix)]


def cells(source, kind):
    return [cell for cell in making.read_cells(source) if cell.cell_type == kind]


def run(codes):
    """What the code cells print, one text for each."""
    names, printed = {"__name__": "lesson"}, []
    for code in codes:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, names)
        printed.append(out.getvalue())
    return printed


def test_what_is_committed_is_what_the_sources_give():
    made = making.build_lessons(write=False)
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make lessons`"
    for kind in ("exercises", "solutions"):
        assert set((FOLDER / kind).glob("*.ipynb")) == {p for p in made if p.parent.name == kind}


def test_solutions_pass_every_check(source):
    code = cells(source, "code")
    printed = run([cell.source for cell in code])
    checks = [text for cell, text in zip(code, printed, strict=True) if "check(" in cell.source]
    assert len(checks) >= 3 or source.stem in ("lesson_0", "lesson_9")
    for text in checks:
        assert text.startswith("✔" if source.stem != "lesson_0" else "✘"), text
    if source.stem == "lesson_4":  # as its prose concludes
        toy = float(printed[-1].removeprefix("loss: "))
        assert toy < float(read_json(FOLDER / "expected.json")["base_rate_loss"])


def test_exercises_run_through_and_say_not_written_yet(source):
    book = json.loads((FOLDER / f"exercises/{source.stem}.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    for text, printed in zip(code, run(code), strict=True):
        if "check(" in text and source.stem != "lesson_0":
            assert re.fullmatch(r"✘ \d\.\d: not written yet\n", printed)


def test_an_answer_without_a_named_misconception_is_told_its_figure():
    """Inputs with truth values are shown too."""
    verdict = examine("7.3", lambda scores, positives: np.median(scores))
    assert verdict.message.startswith("the accuracy with your threshold: it should be")


def test_every_misconception_gets_its_own_hint(numbers):
    """The wrong answers here were written without a look at those of the checks."""
    for number in numbers:
        wrong = wrong_answers(number)
        assert len(wrong) >= 3, number
        for function in wrong:
            verdict = examine(number, function)
            assert not verdict.right, function.__name__
            assert inspect.getdoc(function) in verdict.message, (function.__name__, verdict)


def test_no_wrong_answer_passes_by_luck(numbers):
    """What it agrees with on single inputs, it must not agree with on all that a check draws."""
    for number in numbers:
        asked, rng = find(number), np.random.default_rng(0)
        inputs = [asked.draw(rng) for _ in range(5 * asked.trials)]
        right = [asked.outcome(asked.right, one) for one in inputs]
        for function in (*wrong_answers(number), *asked.wrong.values()):
            found = (asked.outcome(function, one) for one in inputs)
            agreed = np.mean([*map(partial(_equal, tolerance=asked.tolerance), found, right)])
            assert agreed**asked.trials < 1e-5, (number, function, agreed)


def test_right_answers_pass_and_hints_tell_their_ideas_apart(numbers):
    for number in numbers:
        assert all(examine(number, find(number).right, seed).right for seed in range(3)), number
        for hint, function in find(number).wrong.items():
            assert examine(number, function, 1).message == hint, number


def test_an_answer_that_has_no_name_is_shown_beside_the_right_one(capsys):
    check("1.4", lambda first, second: 0.123)
    assert "yours is 0.123." in capsys.readouterr().out
    check("1.4", lambda first, second: first / second)
    assert "your function raises TypeError" in capsys.readouterr().out
    check("1.4", lambda first, second: None)
    assert "yours is nothing (is there a `return`?)" in capsys.readouterr().out
    assert not examine("1.4", lambda first, second: "many").right
    assert not examine("1.4", lambda first, second: [1, 2]).right
    with pytest.raises(RequestError, match=r"no exercise '17\.1'"):
        check("17.1", len)


def test_an_answer_may_change_its_arguments_and_give_a_list_for_a_set():
    right = find("1.2").right
    assert examine("1.2", lambda scores, gain: (right(scores, gain), scores.sort())[0]).right
    assert examine("8.1", lambda *given: sorted(find("8.1").right(*given))).right


def test_a_hint_is_for_answers_that_follow_it_wherever_they_are_right_as_well():
    half = "labels are swapped"  # what this gives where it is wrong, but not where it is right
    assert half not in examine("4.2", lambda logit, label: np.log1p(np.exp(-abs(logit)))).message
    divided = examine("1.2", lambda s, gain: find("1.2").right(s, gain) / bool(np.any(gain)))
    assert "do not divide" in divided.message  # an error where numpy has a NaN


def test_every_check_is_asked_for_in_its_lesson(numbers):
    source = (FOLDER / f"source/lesson_{numbers[0].split('.')[0]}.py").read_text(encoding="utf-8")
    assert re.findall(r'^check\("([\d.]+)"', source, re.M) == numbers


def test_quoted_figures_are_those_of_the_sample():
    assert figures() == read_json(FOLDER / "expected.json"), "run `make lessons`"


def test_prose_quotes_no_measured_figure_by_hand(source):
    for cell in cells(source, "markdown"):
        text = re.sub(r"\[\[\w+\]\]|`[^`]*`", "", cell.source)
        assert re.findall(r"\d\.\d{3,}", text) == [], "take it from expected.json"


# What the prose concludes from the figures, in words that do not change with them.
CONCLUSIONS = {
    "ties: the file decides, and chance is neither 0 nor one half": (
        lambda f: f["constant_shuffled"] < f["constant_expected"] < 0.5 < f["constant_first"]
    ),
    "the fine-tuned model loses to counting characters, and uses not even its tokens": (
        lambda f: f["constant_expected"] < f["model"] < f["glasses"] < f["jaccard"]
    ),
    "a random split leaks, by groups nothing is left": (
        lambda f: f["leak_low"] > 50 and f["memory_auc"] < 0.4 < 0.45 < f["memory_auc_groups"]
    ),
    "most tokens are unknown": lambda f: f["unk_share"] > 50 and f["texts_with_unk"] > 90,
    "the log shows no more than the base rate": (
        lambda f: f["mean_loss"] >= f["base_rate_loss"] and f["log_inside"] > f["log_lines"] / 2
    ),
    "TF-IDF against Jaccard is shown, against BM25 it is not": (
        lambda f: f["p_jaccard"] < 0.05 < f["p_bm25"] and f["tfidf_minus_jaccard"] > 0
    ),
    "calibrated because it says nothing": lambda f: f["ece"] < 0.05 > f["brier_skill"],
    "a threshold of few dev pairs is uncertain": (
        lambda f: f["threshold_low"] + 0.1 < f["threshold_high"] and f["dev_pairs"] < 100
    ),
    "the repair of a large file helps": lambda f: f["extend_ndcg"] > f["keep_ndcg"] + 0.1,
}


@pytest.mark.parametrize("conclusion", CONCLUSIONS)
def test_what_the_prose_concludes_follows_from_the_figures(conclusion):
    first = re.compile(r"-?[\d.]+")
    expected = read_json(FOLDER / "expected.json") | {"repaired_claim": "0"}
    number = {n: float(first.match(v.replace(",", ""))[0]) for n, v in expected.items()}
    assert CONCLUSIONS[conclusion](number)


def test_each_figure_is_predicted_before_and_read_after(source):
    every = making.read_cells(source)
    drawn = [n for n, cell in enumerate(every) if re.search(r"^wb\.show\(ax", cell.source, re.M)]
    for place in drawn:
        code = [cell for cell in every[max(0, place - 6) : place] if cell.cell_type == "code"]
        assert any("predict" in cell.metadata.get("tags", []) for cell in code[-3:]), place
        assert every[place + 1].cell_type == "markdown"


def test_a_lesson_has_its_parts(source):
    prose = "\n".join(cell.source for cell in cells(source, "markdown"))
    parts = ["minutes.**", "After this lesson you can", "**You need:**", "## Take away"]
    parts += ["## Misconceptions", "## Quiz", "[[quiz]]", "**In the workbench:**"]
    if source.stem in ("lesson_0", "lesson_9"):  # no exercise with a misconception of its own
        parts = parts[:3]
    assert [part for part in parts if part not in prose] == []
    assert re.search(r"\*\*\d+ minutes\.\*\*", prose)
    for take_away in re.findall(r"## (?:Take away|要点)\n\n(.*?)\n\n", prose, re.S):
        assert len(re.findall(r"[.?!](?=\s|$)|。", take_away)) == 3, take_away
    assert ("*中文版尚未经母语教师审阅。*" in prose) == ("zh" in making.languages(source))
    for cell in cells(source, "code"):
        assert len(cell.source.splitlines()) <= 30


def drifted(source):
    """For each translated cell whose English text has changed since, what its `of` should be."""
    wrong, digest = [], ""
    for number, cell in enumerate(making.read_cells(source)):
        tags = cell.metadata.get("tags", [])
        if "lang-en" in tags:
            digest = hashlib.sha256(" ".join(cell.source.split()).encode()).hexdigest()[:8]
        elif "lang-zh" in tags and str(cell.metadata.get("of")) != digest:
            wrong.append(f'{source.name}, cell {number}: of="{digest}"')
    return wrong


def test_translations_keep_up_with_the_english(source, tmp_path):
    assert drifted(source) == []
    tags = [cell.metadata.get("tags", []) for cell in cells(source, "markdown")]
    if "zh" in making.languages(source):
        assert tags == [["lang-en"], ["lang-zh"]] * (len(tags) // 2)
        prose = [cell.source for cell in cells(source, "markdown")]
        marks = [sorted(re.findall(r"\[\[\w+\]\]|^#+ ", text, re.M)) for text in prose]
        assert marks[::2] == marks[1::2]
        changed = tmp_path / source.name
        changed.write_text(source.read_text("utf-8").replace("minutes", "min", 1), "utf-8")
        assert len(drifted(changed)) == 1


def test_quizzes_explain_every_choice():
    for file in sorted((FOLDER / "quiz").glob("*.yaml")):
        for language in making.languages(FOLDER / f"source/{file.stem}.py"):
            end = "" if language == "en" else f"_{language}"
            for question in making.yaml.safe_load(file.read_text(encoding="utf-8")):
                choices = question["choices"]
                assert sum(bool(choice.get("right")) for choice in choices) == 1
                parts = [c[f"{part}{end}"] for c in choices for part in ("text", "because")]
                assert all([question[f"text{end}"], *parts])
            shown = making.quiz(file.stem, language)
            assert shown.count("<details>") == shown.count("</details>") >= 3


def test_terms_are_explained_at_their_first_use(source):
    book = json.loads((FOLDER / f"exercises/{source.stem}.ipynb").read_text(encoding="utf-8"))
    prose = ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "markdown"]
    text = "\n\0\n".join(prose)
    free = making.PROTECTED.split(text)[::2]
    linked = re.findall(r'\[([^\]]*(?:\[UNK\])?)\]\(\.\./glossary\.md#\S+ "', text)
    for term in making.glossary():
        if any(re.search(term["pattern"], part) for part in free):
            assert any(re.search(term["pattern"], words) for words in linked), term["en"]


# A term, and what the first cell of the five notebooks that says it also says of it.
EXPLAINED = {
    "cross-encoder": "reads both texts",
    "[UNK]": "Whatever the vocabulary lacks",
    "dictionary": "Chinese-English",
    "logit": "0 means undecided",
    "warm-up": "steps in which it rises first",
    "lexical warm-up": "compare texts before it sees a label",
    "average precision": "positives score above negatives",
    "nDCG@10": "1 where all relevant candidates come first",
    "MRR": "one over the rank of the first relevant candidate",
    "inverse document frequency": "give rare ones more weight",
    "bootstrap": "with replacement",
    "Holm": "multiplied by the number of comparisons",
}


def test_the_five_notebooks_explain_their_terms_where_they_are_first_said():
    books = [json.loads(f.read_text("utf-8")) for f in sorted(FOLDER.parent.glob("0*.ipynb"))]
    every = [cell for book in books for cell in book["cells"] if cell["cell_type"] == "markdown"]
    prose = [" ".join("".join(cell["source"]).split()) for cell in every]
    for term, explanation in EXPLAINED.items():
        first = next(text for text in prose if term.casefold() in text.casefold())
        assert explanation in first, term
        assert any(re.search(entry["pattern"], term) for entry in making.glossary()), term


def test_the_glossary_is_in_two_languages():
    terms = making.glossary()
    assert len(terms) >= 45
    assert len({term["en"] for term in terms}) == len({term["zh"] for term in terms}) == len(terms)
    for term in terms:
        assert set(term) == {"en", "zh", "means", "means_zh", "pattern"}
        assert re.search(term["pattern"], term["en"]), term["en"]


def test_the_recording_is_small_and_fits_sample_and_recipes(monkeypatch):
    assert stale() == ""
    assert all(file.stat().st_size < 2_000_000 for file in (FOLDER / "recorded").iterdir())
    module = importlib.import_module("workbench.lessons.recording")
    monkeypatch.setattr(module, "RECIPES", ("quickstart", "quickstart_repaired"))
    assert "the recipe of a recorded run has changed: make runs of" in stale()
    monkeypatch.setattr(module, "SAMPLE", "data/intents.tsv")
    assert "data/intents.tsv is not the one that the recorded run" in stale()
    assert "`python notebooks/lessons/make.py record RUN CHARACTERS` and `make lessons`" in stale()


def test_a_run_is_recorded_and_read_back(tmp_path, monkeypatch, tiny_model, sample, write_jsonl):
    module = importlib.import_module("workbench.lessons.recording")
    file = tmp_path / "pairs.csv"
    sample.head(200).to_csv(file, index=False)
    monkeypatch.setattr(module, "SAMPLE", str(file))
    monkeypatch.setattr(module, "recording", lambda: tmp_path)
    runs = [tmp_path / name for name in ("plain", "characters")]
    recipes = [ROOT / f"notebooks/parameters/{name}.yaml" for name in module.RECIPES]
    for run, recipe in zip(runs, recipes, strict=True):
        prepare_data(run, str(file), dev_share=0.2, test_share=0.3)
        shutil.copytree(tiny_model, run / "model")
        shutil.copy(recipe, run / "parameters.yaml")
        lists = build_test(read_split(run, "test"), 5).lists
        write_candidates(run / "evaluation/candidates.jsonl", lists)
        row = {"stage": "stage 1", "step": 10, "steps": 10, "epoch": 1.0, "loss": 0.5}
        write_jsonl([row]).replace(run / "training_log.jsonl")
    assert making.record(*runs) == tmp_path
    assert stale() == ""
    found = recorded.__wrapped__()
    assert found.lists == lists
    assert len(found.pairs) == len(found.train) + len(found.dev) + len(found.test) == 200
    assert [len(s) for s in found.repaired_logits] == [len(one.candidates) for one in lists]
    assert found.list_logits[0] == pytest.approx(found.repaired_logits[0])
    assert found.batch == round(len(found.train) / 10)
    with pytest.raises(RequestError, match=r"plain was not .* quickstart_characters\.yaml"):
        making.record(runs[0], runs[0])
    prepare_data(runs[1], str(file), dev_share=0.2, test_share=0.4)
    with pytest.raises(RequestError, match=r"characters was not made .*: make it again"):
        making.record(*runs)
    sample.head(100).to_csv(file, index=False)
    with pytest.raises(RequestError, match="plain was not made"):
        making.record(*runs)


def test_the_doctor_says_what_is_missing(monkeypatch, capsys):
    module = importlib.import_module("workbench.lessons.recording")
    monkeypatch.setattr(module, "TIMED_STEPS", 1)
    assert module.doctor()
    said = capsys.readouterr().out
    assert "[OK] recorded run: fits the sample" in said
    assert re.search(r"a full training here: \d+ min", said)
    monkeypatch.setattr(module, "PACKAGES", ("no_such_package",))
    assert not module.doctor()
    assert "[FAIL] packages: no_such_package" in capsys.readouterr().out
