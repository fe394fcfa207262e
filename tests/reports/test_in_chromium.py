"""The report in a real browser, one for all tests here: how it looks, and what cannot run in it."""

import os
import re

import pytest

from tests.reports.test_browser import records, tokenizer, write_foreign  # noqa: F401 (fixtures)
from workbench.reports.browser import save_browser
from workbench.reports.page import SCRIPT_HASH, write_report

needed = pytest.mark.skipif("NEED_BROWSER" not in os.environ, reason="NEED_BROWSER is not set")
SIZES = [(width, scheme) for width in (1280, 400) for scheme in ("light", "dark")]


@pytest.fixture
def opened(browser):
    """Open an address; gives the page and what it said or asked for meanwhile."""
    pages = []

    def open_page(address, **look):
        page, noise = browser.new_page(**look), []
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda request: noise.append(request.url))
        page.goto(address)
        pages.append(page)
        return page, [one for one in noise if one != address and not one.startswith("data:")]

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def report(chain):
    return write_report(chain)


def test_every_picture_has_a_text_and_every_link_of_the_page_a_place(report):
    page = report.read_text(encoding="utf-8")
    pictures = re.findall(r"<img[^>]*>", page)
    assert len(pictures) > 10
    assert all(re.search(r'alt="[^"]{5,}"', picture) for picture in pictures)
    assert "No description" not in page
    places = re.findall(r'id="([^"]*)"', page)
    links = re.findall(r'<a href="#([^"]*)">', page.partition("<main>")[0])
    assert len(links) > 12
    assert set(links) <= set(places)
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_the_report_is_calm_and_complete(report, opened, width, scheme):
    """No message, no request, nothing wider than the window; Chinese, not boxes; both themes."""
    look = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    page, noise = opened(report.as_uri(), **look)
    assert noise == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for element in ("body", "mark"):  # its paper is light or dark, and so is that of marked text
        paper = page.locator(element).first.evaluate("e => getComputedStyle(e).backgroundColor")
        assert (int(re.search(r"\d+", paper)[0]) > 128) == (scheme == "light"), element
    assert page.locator(".ladder tr.own").count() == 1
    page.evaluate("window.scrollTo(0, 9000)")
    assert page.locator("nav").bounding_box()["y"] == 0, "it stays in sight"
    assert page.locator(".wb-slices").first.is_visible() == (width > 400)
    assert drawn(page, "怎") != drawn(page, "么") != drawn(page, "\U000f1234")


def drawn(page, text):
    """The pixels of a text in the page's own font; characters without a glyph all look alike."""
    page.evaluate(
        """text => { document.getElementById('drawn')?.remove();
        const box = Object.assign(document.createElement('p'), {id: 'drawn', textContent: text});
        document.querySelector('#summary').prepend(box); }""",
        text,
    )
    return page.locator("#drawn").screenshot()


@needed
def test_a_run_folder_made_elsewhere_leads_nowhere(opened, tmp_path, records):  # noqa: F811
    page, noise = opened(write_report(write_foreign(tmp_path, records)).as_uri())
    assert noise == []
    assert page.title().startswith("Run ")


@needed
def test_the_search_works_and_hostile_texts_do_not(opened, tmp_path, records):  # noqa: F811
    """Our script runs, and no text from the data does; that it would be noticed is shown last."""
    save_browser(tmp_path, records)
    report = write_report(tmp_path)
    for asked, found in (("", 37), ("alert(1)", 6), ("没有这样的", 0)):
        page, _ = opened(f"{report.as_uri()}#search={asked}")
        assert page.locator("#found").inner_text() == f"{found} of 37 queries"
        assert page.title().startswith("Run ")
        assert page.locator("#broken").count() == 0
        assert page.locator("script").count() == 1
        assert page.locator("#queries>tbody[hidden]").count() == 37 - found
    text = report.read_text(encoding="utf-8")
    evil = "<script>document.title='taken'</script></main>"
    for policy, taken in ((SCRIPT_HASH, False), ("'unsafe-inline'", True)):
        changed = text.replace(f"script-src {SCRIPT_HASH}", f"script-src {policy}")
        report.write_text(changed.replace("</main>", evil), encoding="utf-8")
        assert (opened(report.as_uri())[0].title() == "taken") == taken
