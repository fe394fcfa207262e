"""What files that nobody vouches for must not do: run code, write or delete elsewhere, mislead."""

import json
import shutil
from html.parser import HTMLParser

import pytest

from tests.conftest import rewritten
from workbench.cli import main
from workbench.files import RequestError, refuse_links, write_json
from workbench.models import ModelError, find_model
from workbench.scoring.cross_encoder import load_cross_encoder

HOSTILE = [
    "<details open ontoggle=fetch('//x.test/t')>",
    "<video src=//x.test/v autoplay>",
    "<img src=x onerror=fetch('//x.test/i')>",
    "</td></table><script>fetch('//x.test/s')</script>",
    "<svg onload=fetch('//x.test/g')>",
    "<iframe srcdoc='<script>1</script>'>",
    "![a](http://x.test/m)",
    "<style>@import '//x.test/c'</style>",
    "$\\href{javascript:1}{x}$",
]
TAGS = (
    "a b br code col colgroup details div em h1 h2 h3 h4 hr i li mark ol p pre progress small span "
    "strong style sub summary sup table tbody td tfoot th thead tr u ul"
)
ATTRIBUTES = (
    "border class colspan halign id lang max open rowspan scope scoped style title valign value"
)


class Tags(HTMLParser):
    """Collects what in a piece of HTML is more than a table or plain text."""

    def __init__(self):
        super().__init__()
        self.harmful = []

    def handle_starttag(self, tag, attrs):
        if tag not in TAGS.split():
            self.harmful.append(tag)
        self.harmful += [f"{tag} {name}" for name, _ in attrs if name not in ATTRIBUTES.split()]


def harmful(html):
    parser = Tags()
    parser.feed(html)
    return parser.harmful


def test_the_search_for_harmful_html_finds_every_hostile_text():
    plain_markdown = HOSTILE[6], HOSTILE[8]
    assert all(harmful(text) or text in plain_markdown or "<style>" in text for text in HOSTILE)
    assert harmful("<table border=1 class=dataframe><td>&lt;img src=x&gt;</td></table>") == []


def markup_in(notebook):
    """What is harmful in a notebook's outputs, and how many of them show a hostile text."""
    found, shown = [], 0
    for output in (one for cell in notebook.cells for one in cell.get("outputs", [])):
        data = output.get("data", {})
        found += data.keys() & {"application/javascript", "image/svg+xml", "text/latex"}
        for kind in ("text/html", "text/markdown"):
            text = data.get(kind, "")
            found += harmful(text)
            shown += "x.test" in text
        if "x.test/m)" in data.get("text/markdown", "").replace("\\", ""):
            found.append("an image of Markdown")
    return found, shown


CODE = [
    ("config.json", {"sentence_transformers": {"activation_fn": "torch.utils.collect_env.main"}}),
    ("config.json", {"sbert_ce_default_activation_function": "torch.distributed.run.main"}),
    ("config.json", {"sbert_ce_default_activation_function": "torch.nn.Module"}),
    ("config.json", {"attn_implementation": "someone/kernels"}),
    ("config_sentence_transformers.json", {"activation_fn": "torch.hub.load"}),
    ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "evil.M"}]),
    ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.util.x"}]),
    ("1_Dense/config.json", {"activation_function": "torch.distributed.run.main"}),
    ("router_config.json", {"types": {"a": "os.system"}}),
    ("sentence_bert_config.json", {"anything new": ["shutil.rmtree"]}),
]


@pytest.mark.parametrize(("file", "content"), CODE)
def test_a_config_that_names_code_is_refused(tiny_model, tmp_path, capsys, file, content):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / file
    before = json.loads(path.read_text()) if path.is_file() and file == "config.json" else {}
    write_json(path, before | content if isinstance(content, dict) else content)
    with pytest.raises(ModelError, match="run as code"):
        find_model(str(folder))
    (tmp_path / "pairs.csv").write_text("sentence_0,sentence_1\na,b\n")
    assert main(["score", str(folder), str(tmp_path / "pairs.csv"), str(tmp_path / "out")]) == 2
    assert file in capsys.readouterr().err


@pytest.mark.parametrize(
    "function", ["torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"]
)
def test_a_usual_activation_is_kept(tiny_model, tmp_path, function):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(
        folder / "config.json", config | {"sentence_transformers": {"activation_fn": function}}
    )
    model = load_cross_encoder(find_model(str(folder)))
    assert function.endswith(type(model.activation_fn).__name__)


@pytest.mark.parametrize(
    "place",
    [
        "notebooks/03_plot_loss.ipynb",
        "model/README.md",
        "stages/.1.tmp",
        "logs/a.log",
        "evaluation",
    ],
)
@pytest.mark.parametrize("command", ["run", "card", "export", "score"])
def test_a_link_inside_a_folder_is_refused(tmp_path, capsys, tiny_model, place, command):
    run, victim = tmp_path / "runs/one", tmp_path / "victim"
    victim.mkdir()
    (victim / "rc").write_text("precious")
    shutil.copytree(tiny_model, run / "model")
    write_json(run / "model/lineage.json", {"stages": []})
    write_json(run / "data/manifest.json", {})
    (run / "parameters.yaml").write_text("{}\n")
    link = run / ("model/onnx" if command == "export" else place)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim if link.suffix in ("", ".tmp") else victim / "rc")
    (tmp_path / "in.csv").write_text("sentence_0,sentence_1\na,b\n")
    arguments = {
        "run": ["--name", "one", "--only", "03", "--runs-dir", str(run.parent)],
        "card": [str(run)],
        "export": [str(run)],
        "score": [str(tiny_model), str(tmp_path / "in.csv"), str(run)],
    }[command]
    assert main([command, *arguments]) == 2
    assert "leads out of" in capsys.readouterr().err
    assert [path.name for path in victim.iterdir()] == ["rc"]
    assert (victim / "rc").read_text() == "precious"


def test_a_sweep_in_place_of_whose_folder_is_a_link_is_refused_before_it_starts(tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").symlink_to("elsewhere")
    asked = ["notebooks/sweeps/vocabularies.yaml", "--name", "linked", "--dry-run"]
    assert main(["sweep", *asked, "--runs-dir", str(tmp_path)]) == 2
    assert "linked is a link that leads out of its folder" in capsys.readouterr().err


def test_a_link_that_stays_inside_is_no_matter(tmp_path):
    (tmp_path / "run/a").mkdir(parents=True)
    (tmp_path / "run/b").symlink_to("a")
    refuse_links(tmp_path / "run")
    refuse_links(tmp_path / "nothing")
    (tmp_path / "away").symlink_to("run")
    with pytest.raises(RequestError, match="away is a link"):
        refuse_links(tmp_path / "away")


def test_runs_are_not_removed_elsewhere(tmp_path, capsys):
    victim = tmp_path / "victim/real"
    victim.mkdir(parents=True)
    (victim / "parameters.yaml").write_text("{}\n")
    runs = tmp_path / "runs"
    job = {"state": "kept", "same_as": str(victim)}
    write_json(runs / "sweep/sweep.json", {"schema": 1, "jobs": {"j": job}})
    (runs / "sweep/linked").symlink_to(victim)
    for name in ("real", "linked", "sweep/linked", "../victim/real"):
        assert main(["runs", "rm", name, "--yes", "--runs-dir", str(runs)]) == 2, name
        assert (victim / "parameters.yaml").is_file()
    assert "is no run folder in" in capsys.readouterr().err


PART = "bert.encoder.layer.0.attention.self.query.weight"
MISSING = {
    "a tensor renamed": lambda c, w: w.update(other=w.pop(PART)),
    "a tensor of every layer": lambda c, w: [w.pop(PART.replace("0", str(n))) for n in range(2)],
    "a table of positions": lambda c, w: w.pop("bert.embeddings.position_embeddings.weight"),
    "more layers": lambda c, w: c.update(num_hidden_layers=4),
    "fewer layers": lambda c, w: c.update(num_hidden_layers=1),
    "ten million layers": lambda c, w: c.update(num_hidden_layers=10_000_000),
}


@pytest.mark.parametrize("change", MISSING.values(), ids=MISSING)
def test_missing_weights_are_refused_and_not_random(tiny_model, tmp_path, change):
    folder = rewritten(tiny_model, tmp_path / "model", change)
    with pytest.raises(ModelError, match="weights"):
        load_cross_encoder(find_model(str(folder)))


def test_a_missing_head_or_pooler_is_a_new_one(tiny_model, tmp_path):
    def change(config, weights):
        for name in [name for name in weights if "pooler" in name or name.startswith("classifier")]:
            del weights[name]

    folder = rewritten(tiny_model, tmp_path / "model", change)
    first, second = (
        load_cross_encoder(find_model(str(folder))).predict([("a", "b")]) for _ in range(2)
    )
    assert first == second


REFUSED = {
    "an unknown kind": {"model_type": "evil", "auto_map": {"AutoModel": "modeling_evil.M"}},
    "three heads": {"num_attention_heads": 3},
    "endless inner layer": {"intermediate_size": 10**12},
    "endless positions": {"max_position_embeddings": 10**12},
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_model_that_the_library_refuses_is_refused_by_name(tiny_model, tmp_path, capsys, change):
    folder = rewritten(tiny_model, tmp_path / "model", lambda c, w: c.update(change))
    (tmp_path / "pairs.csv").write_text("sentence_0,sentence_1\na,b\n")
    assert main(["score", str(folder), str(tmp_path / "pairs.csv"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert str(folder.name) in error
    assert "Traceback" not in error
