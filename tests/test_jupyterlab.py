"""The notebooks as a person uses them: in JupyterLab, in a browser, by Run All.

The texts are hostile and Chinese at once, so that one run shows both. What a person runs is
trusted by JupyterLab: markup in its outputs would be live.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress

import nbformat
import papermill
import pytest

from tests.conftest import ROOT
from tests.test_security import HOSTILE, markup_in
from workbench.files import write_json

SOURCES = sorted((ROOT / "notebooks").glob("0*.ipynb"))
QUESTION = "怎么开通会员"
# What is typed at the end of a notebook's cell of parameters, as far as it has them.
CHANGED = {
    "test_share": 0.3,
    "max_length": 64,
    "learning_rate": 1e-3,
    "batch_size": 16,
    "snapshots": 2,
    "list_size": 8,
    "resamples": 200,
    "query": f"{HOSTILE[0]} {QUESTION}",
    "window": 3,
}


@pytest.fixture(scope="module")
def chinese_fonts():
    """The families of this machine's fonts that cover Chinese, by fontconfig."""
    found = subprocess.run(["fc-list", ":lang=zh", "family"], capture_output=True, text=True)
    return {name.strip() for line in found.stdout.splitlines() for name in line.split(",")}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model):
    """A folder with copies of the notebooks, an alarm, and pairs whose texts are markup."""
    place = tmp_path_factory.mktemp("lab")
    for source in SOURCES:
        (place / source.name).write_bytes(source.read_bytes())
    code = f"from IPython.display import HTML\nHTML({HOSTILE[2]!r})"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    alarm = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel)
    nbformat.write(alarm, place / "alarm.ipynb")
    rows = [
        {
            "sentence_0": f"{HOSTILE[n % 9]} {QUESTION} {n}",
            "sentence_1": f"{HOSTILE[(n + n // 9) % 9]} 会员如何开通 {n // 2}",
            "label": n % 2,
        }
        for n in range(180)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (place / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def address(place):
    """Of a JupyterLab in that folder, with settings and caches of its own."""
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    own = {name: str(place / ".jupyter" / name) for name in (*folders, "IPYTHONDIR")}
    settings = "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    whole = {"windowingMode": "none"}  # cells out of sight are in the page too
    write_json(place / ".jupyter/JUPYTER_CONFIG_DIR" / settings, whole)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    options = ["--IdentityProvider.token=", f"--ServerApp.root_dir={place}"]
    with open(place / "server.log", "wb") as log:
        server = subprocess.Popen(
            [*command, *options], stdout=log, stderr=log, env={**os.environ, **own}
        )
    try:
        yield written_address(place / ".jupyter/JUPYTER_RUNTIME_DIR", server)
    finally:
        server.terminate()
        server.wait(30)


def written_address(folder, server, seconds=240):
    """Where the server says that it is, once it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        for file in folder.glob("jpserver-*.json"):
            return json.loads(file.read_text())["url"]
        time.sleep(0.2)
    raise AssertionError("JupyterLab did not start")


@pytest.fixture(scope="module")
def page(browser, address):
    """A page that notes what it asks of other servers; nothing of that leaves this machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(200_000)  # a machine may be busy
    page.elsewhere = []

    def watch(route):
        if route.request.url.startswith(address):
            route.continue_()
        else:
            page.elsewhere.append(route.request.url)
            route.abort()

    page.route(lambda url: url.startswith(("http:", "https:")), watch)
    dialogs = page.locator("dialog.jp-Dialog").first
    page.add_locator_handler(dialogs, answer, no_wait_after=True)  # another may follow
    yield page
    page.close()


def answer(dialog):
    """Agree to what JupyterLab asks where it is busy, such as whether to start the kernel."""
    print("JupyterLab asked:", dialog.inner_text())
    dialog.locator(".jp-mod-accept").click()


def choose_run_all(page):
    """In the menu Run; again where a busy browser closes the menu under the mouse."""
    first = page.locator(".jp-CodeCell .jp-InputPrompt").first
    while first.text_content() == "[ ]:":
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator("[data-command='runmenu:run-all']").click()
        page.wait_for_timeout(1000)


def run_all(page, address, place, name, changed, seconds=400):
    """Type parameters, choose Run All and wait; the notebook as it was saved."""
    page.goto(f"{address}lab/workspaces/{name[:2]}/tree/{name}")
    # A page is "idle" before it has a kernel too, and what is run then asks for one.
    page.locator(".jp-KernelName").filter(has_not_text="No Kernel").first.wait_for()
    page.wait_for_selector("[data-status=idle]")
    page.locator(".jp-CodeCell .cm-content").first.click()
    if changed:
        page.keyboard.press("Control+End")
        page.keyboard.insert_text("\n" + "\n".join(f"{k} = {v!r}" for k, v in changed.items()))
    choose_run_all(page)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for dialog in page.locator("dialog.jp-Dialog").all():
            answer(dialog)
        page.keyboard.press("Control+s")
        time.sleep(1)
        with suppress(nbformat.reader.NotJSONError):  # it is being written
            notebook = nbformat.read(place / name, as_version=4)
            code = [cell for cell in notebook.cells if cell.cell_type == "code"]
            outputs = [one for cell in code for one in cell.outputs]
            assert [one for one in outputs if one.output_type == "error"] == [], name
            if all(cell.execution_count for cell in code):
                return notebook
    page.screenshot(path=place / "shown.png")
    raise AssertionError(f"{name} did not end; see {place}/shown.png")


def fonts_of_chinese(page):
    """The fonts that Chromium draws the Chinese texts of a page with."""
    page.locator(".jp-OutputArea td", has_text="会员").first.wait_for()
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    query = {"nodeId": root, "selector": ".jp-OutputArea td, .jp-OutputArea pre"}
    found = set()
    for node in session.send("DOM.querySelectorAll", query)["nodeIds"]:
        if "会员" in session.send("DOM.getOuterHTML", {"nodeId": node})["outerHTML"]:
            used = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
            found |= {font["familyName"] for font in used}
    return found


def use_the_widgets(page):
    """Choose another order and query in the error browser; have typed candidates ranked."""
    page.locator("select").filter(has_text="as in the file").last.select_option("as in the file")
    before = page.locator(".wb-orders").last.inner_html()
    page.locator("select[size]").last.select_option(index=1)
    shown = "[...document.querySelectorAll('.wb-orders')].at(-1).innerHTML"
    page.wait_for_function(f"before => {shown} != before", arg=before)
    page.get_by_role("textbox", name="candidates").fill(f"{HOSTILE[2]}\n独一无二")
    page.get_by_role("button", name="rank", exact=True).click()
    page.locator("td", has_text="独一无二").first.wait_for()


def test_run_all_in_jupyterlab(page, address, place, tiny_model, chinese_fonts):
    """With typed parameters every notebook runs, widgets answer, and texts are drawn and dead."""
    run_all(page, address, place, "alarm.ipynb", {})
    page.wait_for_timeout(500)
    assert page.elsewhere, "markup that is live would be noticed"
    page.elsewhere.clear()
    values = {
        "run_dir": str(place / "run"),
        "pairs": str(place / "pairs.jsonl"),
        "base_model": str(tiny_model),
        **CHANGED,
    }
    shown = 0
    for source in SOURCES:
        known = papermill.inspect_notebook(str(source))
        changed = {name: value for name, value in values.items() if name in known}
        notebook = run_all(page, address, place, source.name, changed)
        found, some = markup_in(notebook)
        assert found == [], source.name
        assert "missing from" not in str(notebook), "a figure's font lacks a character"
        shown += some
        if source.name.startswith(("01", "04")):
            assert fonts_of_chinese(page) & chinese_fonts
        if source.name.startswith("04"):
            use_the_widgets(page)
    assert shown >= 5, "the texts were shown, so the test saw them"
    assert page.elsewhere == []
