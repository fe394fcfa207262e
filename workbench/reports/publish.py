"""A run's model, card and report on the Hub, after a look at what would become public."""

import html
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, get_token

from workbench.files import FailedError, RequestError, display_path, first_line, project_root
from workbench.models import HUB_NAME, texts_within
from workbench.ranking.uncertainty import claim
from workbench.reports.findings.ranking import verdict
from workbench.reports.model_card import LOCAL_PATH, public_stages
from workbench.run_folder import RunFolder, read_record
from workbench.runs.parameters import read_settings


def published_files(run_dir: str | Path) -> list[CommitOperationAdd]:
    """What becomes public, as `publish` takes it: the model with its card, and the report.

    Paths of this machine in lineage and report are cut to their last name.

    Raises:
        RequestError: the run has no model, or the model no card.
    """
    run = RunFolder(run_dir)
    if not run.lineage.is_file() or not run.card.is_file():
        raise RequestError(f"{display_path(run.path)} has no model with a card to publish")
    lineage = read_record(run.lineage)
    inside = sorted(file for file in run.model.rglob("*") if file.is_file())
    contents: dict[str, Any] = {
        file.relative_to(run.model).as_posix(): str(file) for file in inside
    }
    public = json.dumps(lineage | {"stages": public_stages(lineage["stages"])})
    contents[run.lineage.name] = public.encode()
    if run.report.is_file():
        page = run.report.read_text("utf-8", "replace")
        asked = read_settings(run.parameters) if run.parameters.is_file() else {}
        values = {value for _, value in texts_within("", [lineage, asked])}
        for path in sorted(filter(os.path.isabs, values), key=len, reverse=True):
            page = page.replace(html.escape(path), html.escape(Path(path).name))
        contents[run.report.name] = page.encode()
    return [CommitOperationAdd(name, content) for name, content in contents.items()]


def publish_problems(run_dir: str | Path, published: Sequence[CommitOperationAdd]) -> list[str]:
    """Why a run's model should not become public as it is, a sentence each; empty if it may."""
    run, problems = RunFolder(run_dir), []
    metrics, text = read_record(run.metrics), run.card.read_text("utf-8", "replace")
    if not metrics:
        problems.append("The model was not evaluated: run notebook 04 first.")
    elif claim(metrics).state in ("worse", "tied"):
        problems.append(re.sub(r"[*`]", "", verdict(metrics)))
    try:
        if not ModelCard(text).data.get("license"):
            problems.append("The card names no licence: workbench card RUN --license NAME")
    except Exception as error:  # of YAML, or of the library about the results
        problems.append(f"The head of the card is not what the Hub reads: {first_line(error)}")
    contents: dict[str, Any] = {one.path_in_repo: one.path_or_fileobj for one in published}
    page = contents.get(run.report.name, b"")  # its pictures hold what looks like paths
    here = [place for place in (str(project_root()), str(Path.home())) if place.encode() in page]
    for file, paths in ((run.card, LOCAL_PATH.findall(text)), (run.report, here)):
        if shown := ", ".join(dict.fromkeys(paths)):
            problems.append(f"{file.name} names paths of this machine: {shown}")
    return problems


def check_name(name: str) -> None:
    """Refuse (`RequestError`) what cannot be the name of a repository on the Hub."""
    if not HUB_NAME.fullmatch(name):
        raise RequestError(f"{name!r} cannot be a name on the Hub: it must be owner/name")


def publish(
    published: Sequence[CommitOperationAdd], name: str, private: bool = False, api: Any = None
) -> str:
    """Upload what `published_files` lists to the Hub in one commit; the address of the model.

    The repository `name` is made if there is none; `api` is a `huggingface_hub.HfApi`, None for one
    with this machine's token.

    Raises:
        RequestError: the name cannot be one, there is no token, or a repository that should be
            private is public.
        FailedError: the Hub cannot be reached, or refuses.
    """
    check_name(name)
    if api is None and not get_token():
        raise RequestError("there is no token for the Hub: run `hf auth login`, or set HF_TOKEN")
    api = api or HfApi()
    try:
        api.create_repo(name, private=private or None, exist_ok=True)
        public = private and not api.model_info(name).private
        if not public:
            api.create_commit(name, published, commit_message="Model, card and report")
    except (OSError, ValueError) as error:  # all errors of the Hub are either
        raise FailedError(f"{name}: {first_line(error)}") from error
    if public:
        raise RequestError(f"{name} is there already and public: choose another name")
    return f"https://huggingface.co/{name}"
