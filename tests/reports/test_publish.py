"""What would become public is listed and looked at; the Hub gets that and nothing else."""

import json
from types import SimpleNamespace

import pytest
from huggingface_hub import errors

from workbench.cli import main
from workbench.files import write_json, write_text
from workbench.reports import publish as hub

CARD = "---\nlicense: apache-2.0\ntags:\n- reranker\n---\n\n# mine\n\nSee https://www.sbert.net/docs/x.\n"
NO_INTERVAL = {"low": None, "high": None}
GAP = {"mean": 0.1, "low": 0.05, "high": 0.15, "p_holm": 0.001}


def metrics(model=0.6, **gap):
    rows = [("model", model), ("bm25", 0.5)]
    return {
        "rows": [{"scorer": name, "ndcg@10": NO_INTERVAL | {"mean": mean}} for name, mean in rows],
        "queries": 100,
        "candidates": 3000,
        "pairs": 0,
        "interval": "95 % bootstrap",
        "ties": "expected",
        "recipe": {"source": "lists.jsonl"},
        "model_minus": {"bm25": GAP | gap},
    }


WORSE = metrics(0.4, mean=-0.1, low=-0.15, high=-0.05)


@pytest.fixture
def run(tmp_path):
    """A run folder with a space and Chinese in its name."""
    run = tmp_path / "我的 run"
    write_text(run / "model/README.md", CARD)
    write_text(run / "model/model.safetensors", "x" * 1234)
    write_text(run / "model/onnx/model.onnx", "y")
    stage = {"base": {"name": "a/b", "path": "/home/someone/models/b"}}
    write_json(run / "model/lineage.json", {"stages": [stage]})
    write_json(run / "evaluation/metrics.json", metrics())
    write_text(run / "report.html", "<p>fine</p>")
    return run


class FakeApi:
    """Takes notes in place of the Hub; `fails` is raised at the commit."""

    def __init__(self, private=True, fails=None):
        self.private, self.fails, self.made, self.commits = private, fails, [], []

    def create_repo(self, name, private, exist_ok):
        assert exist_ok
        self.made.append((name, private))

    def model_info(self, name):
        return SimpleNamespace(private=self.private)

    def create_commit(self, name, operations, commit_message):
        if self.fails:
            raise self.fails
        self.commits.append({one.path_in_repo: one.path_or_fileobj for one in operations})


def test_the_model_its_card_and_the_report_are_one_commit(run):
    api = FakeApi()
    assert (
        hub.publish(hub.published_files(run), "me/mine", api=api)
        == "https://huggingface.co/me/mine"
    )
    assert api.made == [("me/mine", None)]
    (commit,) = api.commits
    names = {"README.md", "lineage.json", "model.safetensors", "onnx/model.onnx", "report.html"}
    assert set(commit) == names
    assert commit["report.html"] == b"<p>fine</p>"
    assert commit["onnx/model.onnx"] == str(run / "model/onnx/model.onnx")
    assert json.loads(commit["lineage.json"])["stages"][0]["base"] == {"name": "a/b", "path": "b"}


def test_a_private_model_does_not_go_to_a_public_repository(run):
    hub.publish(hub.published_files(run), "me/mine", private=True, api=(api := FakeApi()))
    assert (api.made, len(api.commits)) == ([("me/mine", True)], 1)
    with pytest.raises(ValueError, match="already and public"):
        hub.publish(
            hub.published_files(run), "me/mine", private=True, api=(api := FakeApi(private=False))
        )
    assert api.commits == []


def test_a_dry_run_lists_files_with_sizes_and_needs_no_network(run, capsys, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    monkeypatch.setattr(hub, "publish", None)
    assert main(["publish", str(run), "me/mine", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1,234 bytes  model.safetensors" in out
    assert "report.html" in out
    assert out.endswith("nothing was found\nnothing was uploaded\n")


PROBLEMS = {
    "the verdict": (lambda r: write_json(r / "evaluation/metrics.json", WORSE), "do not publish"),
    "no evaluation": (lambda r: (r / "evaluation/metrics.json").unlink(), "was not evaluated"),
    "no licence": (
        lambda r: write_text(r / "model/README.md", "---\ntags: [a]\n---\n# x\n"),
        "names no licence",
    ),
    "a broken head": (
        lambda r: write_text(r / "model/README.md", "---\ntags: [a\n---\n# x\n"),
        "is not what the Hub reads",
    ),
    "broken results": (
        lambda r: write_text(r / "model/README.md", "---\nlicense: mit\nmodel-index: 3\n---\n"),
        "is not what the Hub reads",
    ),
    "a path on the card": (
        lambda r: write_text(r / "model/README.md", f"{CARD}<code>/srv/secret/b</code>"),
        "README.md names paths of this machine: /srv/secret/b",
    ),
    "a path in the report": (
        lambda r: write_text(r / "report.html", f"<p>{hub.project_root()}/x</p>"),
        "report.html names paths",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_should_not_become_public_is_refused(name, run, capsys, monkeypatch):
    damage, message = PROBLEMS[name]
    damage(run)
    sent = []
    monkeypatch.setattr(hub, "publish", lambda *given: sent.append(given) or "address")
    assert main(["publish", str(run), "me/mine"]) == 2
    assert message in capsys.readouterr().err
    assert sent == []
    assert main(["publish", str(run), "me/mine", "--anyway", "--private"]) == 0
    assert message in capsys.readouterr().out
    ((published, *asked),) = sent
    assert asked == ["me/mine", True]
    assert "model.safetensors" in {one.path_in_repo for one in published}


def test_a_name_a_token_or_a_model_that_is_missing_is_named(run, tmp_path, capsys, monkeypatch):
    assert main(["publish", str(tmp_path), "me/mine"]) == 2
    assert "no model with a card" in capsys.readouterr().err
    for dry in ([], ["--dry-run"]):
        assert main(["publish", str(run), "mine", *dry]) == 2
        assert "must be owner/name" in capsys.readouterr().err
    monkeypatch.setattr(hub, "get_token", lambda: None)
    assert main(["publish", str(run), "me/mine"]) == 2
    assert "hf auth login" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        errors.OfflineModeIsEnabled("offline mode"),
        ConnectionError("no route"),
        ConnectionError(),
        ValueError("403 no"),
    ],
)
def test_a_hub_that_refuses_is_reported(run, error, capsys, monkeypatch):
    monkeypatch.setattr(hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(hub, "HfApi", lambda: FakeApi(fails=error))
    assert main(["publish", str(run), "me/mine"]) == 1
    said = str(error) or "ConnectionError"
    assert f"failed: me/mine: {said}" in capsys.readouterr().err
