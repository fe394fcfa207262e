"""The pages and slides as Chromium shows them, without a network."""

import re
import runpy

import pytest

from tests.conftest import ROOT

PAGES = [
    "index.html",
    "lessons/exercises/lesson_1.html",
    "lessons/exercises/lesson_3.zh.html",
    "lessons/glossary.html",
    "notebooks/01_inspect_data.html",
    "notebooks/04_evaluate_ranking.html",
    "reference.html",
]


@pytest.fixture(scope="module")
def site(once, chain):
    """The pages of a small run."""
    build = runpy.run_path(str(ROOT / "docs/site/make.py"))["build"]
    return once("site", lambda folder: build(folder, chain))


@pytest.fixture
def page(browser, site):
    """A page that notes every message, and every request that leaves the machine."""
    page = browser.new_page()
    page.noise = []
    page.on("console", lambda m: m.type in ("error", "warning") and page.noise.append(m.text))
    page.on("pageerror", lambda error: page.noise.append(str(error)))
    page.on("request", lambda r: re.match("file:|data:|blob:", r.url) or page.noise.append(r.url))
    yield page
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_quiet_and_fit_the_window(page, site, scheme):
    page.emulate_media(color_scheme=scheme)
    for name in PAGES:
        page.goto((site / name).as_uri())
        for width in (1300, 360):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        assert page.evaluate("[...document.images].every(image => image.alt && image.width)"), name
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.search(r"\d+", paper)[0]) > 128) == (scheme == "light"), name
    assert page.noise == []


def test_formulas_quizzes_and_slides_work(page, site):
    page.goto((site / "lessons/exercises/lesson_1.html").as_uri())
    page.wait_for_selector("mjx-container")
    for choice in page.locator("details").all():
        choice.locator("summary").click()
    assert page.get_by_text("1 / log2(3) = 0.631").is_visible()
    assert page.get_by_text("not written yet").count() == 4
    page.goto((site / "slides/lesson_3.html").as_uri())
    page.wait_for_selector(".reveal.ready")
    assert page.locator(".slides section").count() >= 5
    assert page.noise == []


def test_search_finds_chinese(page, site):
    page.goto((site / "search.html").as_uri() + "?q=排序")
    page.wait_for_selector("ul.search li")
    assert page.locator("ul.search li a").filter(has_text="Glossary").count()


def test_links_within_the_site_resolve_and_no_answer_is_shown(site):
    for file in site.rglob("*.html"):
        if "_static" in file.parts:
            continue
        text = file.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#:?]+)[^":]*"', text):
            assert (file.parent / link).exists(), f"{file.name}: {link}"
    pages = [site / f"lessons/{name}.html" for name in ("exercises/lesson_1", "glossary")]
    lesson, glossary = (page.read_text("utf-8") for page in pages)
    terms = set(re.findall(r'href="\.\./glossary\.html#([^"]+)"', lesson))
    assert len(terms) > 10
    assert all(f'id="{term}"' in glossary for term in terms)
    assert not list(site.rglob("solutions"))
