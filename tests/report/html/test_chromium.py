"""The page in a browser: it loads nothing, says nothing, can be read, reached by keyboard, printed and made narrow."""

import re

import pytest

PAGES = ["healthy", "one_fault", "two_faults", "hostile", "compared"]
SCHEMES = {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}

# Of every text that is seen: the contrast (WCAG 2.2) with the first background behind it that is not transparent.
CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const bright = (c) => [.2126, .7152, .0722].reduce((sum, weight, i) => sum + weight * linear(c[i] / 255), 0);
document.querySelectorAll("details").forEach((each) => { each.open = true; });
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
  if (!text || element.closest("script, style, [hidden]") || !element.checkVisibility()) continue;
  let behind = element;
  const back = () => parse(getComputedStyle(behind).backgroundColor);
  while (back().length === 4 && back()[3] === 0) behind = behind.parentElement;
  const both = [bright(parse(getComputedStyle(element).color)), bright(back())];
  found.push([(Math.max(...both) + .05) / (Math.min(...both) + .05), element.className, text.slice(0, 40)]);
}
return found.sort((a, b) => a[0] - b[0]).slice(0, 5);
"""

# What Tab comes to, in its order, with its name.
TAB_ORDER = """
const all = [...document.querySelectorAll("a[href], button, input, summary, [tabindex]")];
return all.filter((e) => e.tabIndex >= 0 && e.checkVisibility())
  .map((e) => [e.tagName.toLowerCase(), e.tabIndex, (e.getAttribute("aria-label") || e.textContent).trim()]);
"""

STRUCTURE = """
const names = (selector) => [...document.querySelectorAll(selector)].map((e) => e.getAttribute("aria-label") || "");
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
const headings = [...document.querySelectorAll("h1, h2, h3, h4")].map((e) => Number(e.tagName[1]));
return {
  landmarks: ["header", "nav", "main", "footer"].map((name) => document.querySelectorAll("body > " + name).length),
  headings,
  jumps: headings.filter((level, i) => i && level > headings[i - 1] + 1).length,
  images: names("svg[role=img]"), all_images: document.querySelectorAll("svg").length,
  tables: [...document.querySelectorAll("table")].map((e) => Boolean(e.caption && e.caption.textContent.trim())),
  loose_heads: document.querySelectorAll("th:not([scope])").length,
  twice: ids.length - new Set(ids).size,
  lost: [...document.querySelectorAll("a[href^='#']")].filter((e) => !document.getElementById(e.hash.slice(1))).length,
  outside: [...document.querySelectorAll("[src], link")].length,
  title: document.title, language: document.documentElement.lang,
};
"""


@pytest.fixture(params=PAGES)
def page(request, tmp_path):
    return request.getfixturevalue(request.param).to_html(tmp_path / "page.html")


def test_it_loads_and_says_nothing(page, browser):
    shown, said = browser.run(page, "--dump-dom")
    assert said == []
    assert "</html>" in shown
    assert "broken" not in re.search("<title>(.*?)</title>", shown)[1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_stands_out(scheme, two_faults, browser, tmp_path):
    worst = browser.asked(two_faults.to_html(tmp_path / "page.html"), CONTRAST, *SCHEMES[scheme])
    assert worst[0][0] >= 4.5, worst


def test_it_has_the_structure_that_a_screen_reader_needs(page, browser):
    found = browser.asked(page, STRUCTURE)
    assert found["landmarks"] == [1, 1, 1, 1]
    assert (found["headings"].count(1), found["jumps"]) == (1, 0)
    assert len(found["images"]) == found["all_images"] > 2
    assert all(found["images"])
    assert all(found["tables"])
    assert len(found["tables"]) > 5
    assert (found["loose_heads"], found["twice"], found["lost"], found["outside"]) == (0, 0, 0, 0)
    assert found["language"] == "en"


def test_the_keyboard_comes_to_everything_in_the_order_of_the_page(one_fault, browser, tmp_path):
    found = browser.asked(one_fault.to_html(tmp_path / "page.html"), TAB_ORDER)
    assert {order for _, order, _ in found} == {0}  # the order of the page
    assert all(name for *_, name in found)
    names = [name for *_, name in found]
    assert names[:2] == ["Skip to: Findings", "Findings"]
    assert [name for kind, _, name in found if kind == "summary"][-1].endswith("words")
    assert "The numbers: std a" in names


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("name", ["two_faults", "hostile"])
def test_it_is_no_wider_than_the_screen(width, name, request, browser, tmp_path):
    page = request.getfixturevalue(name).to_html(tmp_path / "page.html")
    found = browser.framed(page, width, "return [page.documentElement.scrollWidth, page.body.scrollHeight];")
    assert found[0] <= width
    assert found[1] > 1500


def test_a_number_is_shown_under_the_pointer(one_fault, browser, tmp_path):
    script = """
    const picture = document.querySelector("#m-std .heat svg"), box = picture.getBoundingClientRect();
    const at = { clientX: box.right - 1, clientY: box.top + 1, bubbles: true };
    picture.dispatchEvent(new PointerEvent("pointermove", at));
    return [document.getElementById("tip").textContent, document.getElementById("tip").hidden];
    """
    told, hidden = browser.asked(one_fault.to_html(tmp_path / "page.html"), script)
    last, std = one_fault.history[-1], one_fault.history[-1].activations[0].std
    assert told == f"0, 1, step {last.step}: {std:.3f}"
    assert not hidden


def test_the_numbers_of_a_line_are_shown_under_the_pointer(one_fault, browser, tmp_path):
    script = """
    const picture = document.querySelector("#loss .chart svg"), box = picture.getBoundingClientRect();
    const at = { clientX: box.left + 1, clientY: box.top + 9, bubbles: true };
    picture.dispatchEvent(new PointerEvent("pointermove", at));
    return document.getElementById("tip").textContent;
    """
    told = browser.asked(one_fault.to_html(tmp_path / "page.html"), script)
    step, loss = re.fullmatch(r"step (\d+): loss in training ([\d.]+)", told).groups()
    assert step == "0"
    assert float(loss) == pytest.approx(one_fault.history[0].loss, rel=0.01)


def test_it_prints(two_faults, browser, tmp_path):
    pdf = tmp_path / "page.pdf"
    browser.run(two_faults.to_html(tmp_path / "page.html"), f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    written = pdf.read_bytes()
    assert written.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", written)) <= 14


def test_names_do_no_harm(hostile, browser, tmp_path):
    found = browser.asked(
        hostile.to_html(tmp_path / "page.html"),
        "return [document.title, document.images.length, document.scripts.length];",
    )
    assert found == ["Sick: diagnosis of a training", 0, 2]  # the page's own and the test's
