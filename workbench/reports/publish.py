"""A run's model, card and report on the Hub, after a look at what would become public."""

import re
from pathlib import Path
from typing import Any

from workbench.files import display_path, project_root
from workbench.models import HUB_NAME
from workbench.ranking.uncertainty import claim
from workbench.reports.findings.ranking import verdict
from workbench.run_folder import RequestError, RunFolder, read_record

LOCAL_PATH = re.compile(
    r"""(?<![\w:/.<+])/(?:[^\s`|<>()"'/]+/)+[^\s`|<>()"',;]*|\b[A-Z]:\\[^\s`|<>"]+"""
)
REFUSED = ("worse", "tied")  # states of a claim


class PublishError(RuntimeError):
    """The Hub has not taken the model; the message says why, as far as it is known."""


def published_files(run_dir: str | Path) -> dict[str, Path]:
    """What `publish` uploads, by its path in the repository: the model with its card, the report.

    Raises:
        RequestError: the run has no model, or the model no card.
    """
    run = RunFolder(run_dir)
    if not run.lineage.is_file() or not run.card.is_file():
        raise RequestError(f"{display_path(run.path)} has no model with a card to publish")
    inside = sorted(file for file in run.model.rglob("*") if file.is_file())
    files = {file.relative_to(run.model).as_posix(): file for file in inside}
    return files | ({run.report.name: run.report} if run.report.is_file() else {})


def publish_problems(run_dir: str | Path) -> list[str]:
    """Why a run's model should not become public as it is, a sentence each; empty if it may."""
    from huggingface_hub import ModelCard

    run, problems = RunFolder(run_dir), []
    metrics, text = read_record(run.metrics), run.card.read_text("utf-8", "replace")
    if not metrics:
        problems.append("The model was not evaluated: run notebook 04 first.")
    elif claim(metrics).state in REFUSED:
        problems.append(re.sub(r"[*`]", "", verdict(metrics)))
    try:
        if not ModelCard(text).data.get("license"):
            problems.append("The card names no licence: workbench card RUN --license NAME")
    except Exception as error:  # of YAML, or of the library about the results
        reason = str(error).strip().splitlines()[0]
        problems.append(f"The head of the card is not what the Hub reads: {reason}")
    named = {run.card: LOCAL_PATH.findall(text)}
    if run.report.is_file():  # its pictures hold what looks like paths, so these two alone
        page = run.report.read_text("utf-8", "replace")
        named[run.report] = [p for p in (str(project_root()), str(Path.home())) if p in page]
    for file, paths in named.items():
        shown = ", ".join(dict.fromkeys(paths))
        problems += [f"{file.name} names paths of this machine: {shown}"] * bool(paths)
    return problems


def publish(run_dir: str | Path, name: str, private: bool = False, api: Any = None) -> str:
    """Upload a run's model, card and report to the Hub in one commit; the address of the model.

    Paths of this machine in `lineage.json` are cut to their last name. The repository `name` is
    made if there is none; `api` is a `huggingface_hub.HfApi`, None for one with this machine's
    token.

    Raises:
        RequestError: the name cannot be one, there is no token, or a repository that should be
            private is public.
        PublishError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not HUB_NAME.fullmatch(name):
        raise RequestError(f"{name!r} cannot be a name on the Hub: it must be owner/name")
    if api is None and not get_token():
        raise RequestError("there is no token for the Hub: run `hf auth login`, or set HF_TOKEN")
    api, files = api or HfApi(), published_files(run_dir)
    lineage = RunFolder(run_dir).lineage
    text = LOCAL_PATH.sub(lambda path: Path(path[0]).name, lineage.read_text(encoding="utf-8"))
    added = [
        CommitOperationAdd(path, text.encode() if file == lineage else str(file))
        for path, file in files.items()
    ]
    try:
        api.create_repo(name, private=private or None, exist_ok=True)
        public = private and not api.model_info(name).private
        if not public:
            api.create_commit(name, added, commit_message="Model, card and report")
    except (OSError, ValueError) as error:  # all errors of the Hub are either
        raise PublishError(f"{name}: {str(error).strip().splitlines()[0]}") from error
    if public:
        raise RequestError(f"{name} is there already and public: choose another name")
    return f"https://huggingface.co/{name}"
