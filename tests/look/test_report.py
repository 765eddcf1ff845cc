"""A batch as pages: all there, nothing fetched, every figure named."""

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from lib.look import claims, pages, report
from lib.study import paths, tables

WALK = "02_walk_latent_space"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RECORD = {
    "commit": "0",
    "device": "CPU",
    "seconds": 1.0,
    "peak_mb": 1,
    "torch": "0",
    "finished": "2026-01-01T00:00:00Z",
}


class Page(HTMLParser):
    """What a page fetches, and the text of its images."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.alts, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "img":
            self.alts.append(given.get("alt", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif place := given.get("src") or given.get("href"):
            self.fetched.append(place)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Where the pages of a batch go."""
    return run_two_rows(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The pages of that batch, as written once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = run_two_rows(tmp_path_factory.mktemp("study"), patch)
        assert report.write("quick") == folder.parent / "index.html"
    return folder


def run_two_rows(tmp_path, monkeypatch):
    """Make a batch of two rows as it stands after a run, one finished, one that failed; return where its pages go."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setattr(paths, "KEPT", tmp_path / "kept")
    monkeypatch.delenv("STUDY_RUNS", raising=False)
    meant = {
        row: {"run_id": f"{WALK}-{row}", "level": "toy", "departs": "<toys>"}
        for row in ("digits-walk", "failed", "never")
    }
    for row in ("digits-walk", "failed"):
        folder = tmp_path / "runs" / meant[row]["run_id"]
        folder.mkdir(parents=True)
        (folder / "notebook.ipynb").write_bytes((paths.NOTEBOOKS / f"{WALK}.ipynb").read_bytes())
    (tmp_path / "runs" / f"{WALK}-digits-walk" / "walk.png").write_bytes(b"a picture")
    line = {
        "metric": "the same, memorised net minus this",
        "value": 1.5,
        "low": 1.0,
        "high": 2.0,
        "published": "paper.walk.control",
        "note": "",
        "data": "",
    }
    known = {
        "run_id": f"{WALK}-digits-walk",
        "notebook": WALK,
        "batch": "quick",
        "row": "digits-walk",
        "departs": "<toys>",
    }
    record = RECORD | known | {"parameters": {}, "dependencies": {}, "metrics": [line]}
    (tmp_path / "runs" / f"{WALK}-digits-walk" / "metrics.json").write_text(json.dumps(record))
    tables.claim("quick", tmp_path / "quick.yaml", meant)
    whole = pages.page
    monkeypatch.setattr(  # the stored notebooks take ten seconds
        pages,
        "page",
        lambda book, *rest: whole(book, *rest) if rest[-1] != "../index.html" else "<!DOCTYPE html><p>stored",
    )
    return tmp_path / "site" / "quick"


def test_a_site(written):
    assert {path.name for path in written.iterdir()} == {
        "index.html",
        "digits-walk.html",
        "failed.html",
        "digits-walk.walk.png",
    }
    pages = {path: Page(path.read_text()) for path in written.parent.rglob("*.html")}
    assert len(pages) > 50
    for path, page in pages.items():
        fetched = [place for place in page.fetched if not place.startswith(("data:", "#"))]
        assert all((path.parent / place).is_file() for place in fetched), path
        assert not [
            link for link in page.links if not link.startswith(("#", "http")) and not (path.parent / link).is_file()
        ], path
        assert not [alt for alt in page.alts if len(alt) < 8 or "No description" in alt], path
    index = (written / "index.html").read_text()
    assert "../claims/walk.html" in pages[written / "index.html"].links, "which the finished run decides"
    assert re.search("failed.html.*failed</b>: not finished", index, re.DOTALL)
    assert "never" not in index, "a row that was not run has no page"
    assert "index.html" in pages[written / "digits-walk.html"].links


def test_the_front_page_has_every_claim_by_section(written):
    text = (written.parent / "index.html").read_text()
    known = claims.load()
    found = re.findall(r'<h3><a href="claims/([\w-]+).html">', text)
    assert found == list(known)
    parts = [unescape(part) for part in re.findall("<section><h2>(.*?)</h2>", text)]
    assert parts[: len({claim.part for claim in known.values()})] == list(dict.fromkeys(c.part for c in known.values()))
    assert text.count('class="badge supported"') == 1 and "<b>1</b> supported" in text
    assert "quick/index.html" in Page(text).links


def test_a_claims_page_has_criterion_values_and_executed_notebook(written):
    walk = (written.parent / "claims" / "walk.html").read_text()
    assert "above 0" in walk and "1.50 (1.00 to 2.00)" in walk and "quick/digits-walk" in walk
    assert "../quick/digits-walk.html" in Page(walk).links
    assert re.search('<svg [^>]*aria-label="quick/digits-walk: 1.50 \\(1.00 to 2.00\\)"', walk)
    epoch = (written.parent / "claims" / "epoch.html").read_text()
    assert "../notebooks/07_memorisation.html" in Page(epoch).links and "not tested" in epoch


def test_the_whole_study_needs_no_run(tmp_path, monkeypatch):
    """As git has it: a page per batch with its rows, and one per notebook that was kept."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "none"))
    monkeypatch.setattr(pages, "page", lambda notebook, title, back, target="": f"<title>{escape(title)}</title>")
    for name in ("lib", "gone"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "index.html").touch()
    report.write()
    assert (tmp_path / "site" / "lib" / "index.html").exists(), "which make docs wrote"
    assert not (tmp_path / "site" / "gone").exists()
    for path in paths.KEPT.glob("*/*/metrics.json"):
        batch, row = path.parent.parent.name, path.parent.name
        assert row in (tmp_path / "site" / batch / "index.html").read_text()
        kept = path.with_name("notebook.ipynb").exists()
        assert (tmp_path / "site" / batch / f"{row}.html").exists() == kept


def test_a_value_is_drawn_where_it_lies():
    """From 0 to 10 on 6 to 234: 5 in the middle, a bound of 0 at the left end; logarithms where values are ratios."""
    line = {"value": 5.0, "low": 0.0, "high": 10.0, "side": "for", "criterion": "above 0", "unit": "points"}
    drawn = pages.to_svg(pd.DataFrame([line]), "a & b")
    assert '<circle cx="120.0" cy="10"' in drawn and '<line x1="6.0" x2="234.0" y1="10"' in drawn
    assert '<line class="bound" x1="6.0"' in drawn and '<g class="for">' in drawn and 'aria-label="a &amp; b"' in drawn
    ratio = line | {"value": 2.0, "low": 1.0, "high": 4.0, "criterion": "above 1", "unit": "times as much"}
    assert '<circle cx="120.0"' in pages.to_svg(pd.DataFrame([ratio]), "")
    assert claims.bounds_of("within 1.5") == [-1.5, 1.5]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_the_front_page_in_a_browser(written):
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((1280, "light"), (390, "dark")):
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page, asked, wrong = context.new_page(), [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            page.goto((written.parent / "index.html").as_uri())
            shown = page.locator(".claim:visible")
            assert shown.count() == len(claims.load())
            page.get_by_label("not tested", exact=True).uncheck()
            assert shown.count() == 1 and page.locator("[role=status]").inner_text().startswith("1 of ")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing to scroll sideways"
            lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
            assert (sum(lightness) > 600) == (scheme == "light")
            assert asked and not wrong
            assert all(place.startswith(("file:", "data:")) for place in asked), "no other host is asked"
        browser.close()


def test_a_study_ends_in_one_screen(site, capsys):
    """Ten numbers beside what git keeps: here one of them, since one row was run."""
    report.tell("quick")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 20 and max(map(len, lines[:-1])) <= 120, "the last one names a folder"
    told = [line for line in lines if re.search("at least|at most|above", line)]
    assert len(told) == len(report.TEN) == 10
    assert all(re.search(r" -  +-  ", line) for line in told), "that row is none of the ten"
    assert "index.html" in lines[-1] and (site.parent / "index.html").is_file()


def test_a_number_that_is_not_as_it_should_be_is_pointed_at(site, monkeypatch, capsys):
    monkeypatch.setattr(report, "write", lambda: site / "index.html")
    metric = "the same, memorised net minus this"
    ten = [("digits-walk", metric, criterion, criterion) for criterion in ("above 1", "above 2")]
    monkeypatch.setattr(report, "TEN", ten)
    report.tell("quick")
    met, missed = [line for line in capsys.readouterr().out.splitlines() if "above" in line]
    assert "1.5" in met and "look there" not in met and missed.endswith("<- look there")


def test_a_number_that_was_not_made_here_is_not_told_as_if_it_were(site, monkeypatch, capsys):
    """Not even where git keeps it: a row of the quick study that failed has no number here."""
    monkeypatch.setattr(report, "write", lambda: site / "index.html")
    monkeypatch.setattr(tables, "made_here", lambda: iter(()))
    report.tell("quick")
    told = [line for line in capsys.readouterr().out.splitlines() if re.search("at least|at most|above", line)]
    assert len(told) == 10 and all(re.search(r" - +\S+ .*<- not run$", line) for line in told)


def test_the_ten_numbers_are_kept():
    kept = tables.read("quick", kept_only=True)
    assert {(row, metric) for row, metric, *_ in report.TEN} <= set(zip(kept["row"], kept["metric"], strict=True))


def test_the_player_is_on_the_page_with_its_buttons(written):
    page = (written / "digits-walk.html").read_text()
    assert "new Animation(frames" in page
    used = set(re.findall(r'class="fa fa-([a-z-]+)"', page))
    assert used
    assert used <= pages.ICONS.keys()


def test_a_figure_is_named_after_its_place():
    cells = [
        nbformat.v4.new_markdown_cell("## The *turn*\n\n| a | b |\nFaces turn. More."),
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", {"image/png": "AAAA\n"})]),
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", {"text/html": "<img src=x>"})]),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    pages.describe_figures(notebook)
    made = [cell.outputs[0].data["text/html"] for cell in cells[1:]]
    assert [Page(html).alts for html in made] == [["The *turn*: Faces turn."]] * 2


def test_mathematics_and_backslashes_stand_under_figures_too():
    """A heading is text, and no pattern: `\\m` and `\\1` would be commands to a regular expression."""
    cells = [
        nbformat.v4.new_markdown_cell(r"## From $\mathbf{z}$ to \1 & <b>" + "\n\nThe mean of $\\bar{z}$. More."),
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", {"text/html": "<img src=x>"})]),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    pages.describe_figures(notebook)
    alts = Page(cells[1].outputs[0].data["text/html"]).alts
    assert alts == [r"From $\mathbf{z}$ to \1 & <b>: The mean of $\bar{z}$."]


def test_nothing_run_says_what_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "KEPT", tmp_path)
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    with pytest.raises(ValueError, match="no run of quick in .*: `make study` makes them"):
        report.write("quick")
    with pytest.raises(ValueError, match="`make batch BATCH=batches/real.yaml` makes them"):
        report.write(Path("batches/real.yaml").stem)


MIB = 2**20
NOT_IN_GIT = ("*/.venv/*", "*/.git/*", "*/results/runs/*", "*/results/site/*", "*/data/packed/*", "*/data/downloads/*",
              "*/__pycache__/*", "*/.*_cache/*", "*.egg-info/*")  # fmt: skip


def tracked_files():
    """The files of git; of a tree without git, all but what .gitignore names."""
    git = subprocess.run(["git", "-C", paths.ROOT, "ls-files", "-z"], capture_output=True, text=True)
    if not git.returncode:
        return [path for name in git.stdout.split("\0") if name and (path := paths.ROOT / name).is_file()]
    found = (path for path in paths.ROOT.rglob("*") if path.is_file())
    return [path for path in found if not any(path.match(pattern) or fnmatch(path, pattern) for pattern in NOT_IN_GIT)]


def test_the_tree_is_small_enough_to_be_copied_in_minutes():
    files = [path for path in tracked_files() if paths.NETS not in path.parents]
    assert len(files) > 100
    assert sum(path.stat().st_size for path in files) <= 30 * MIB


def test_git_holds_only_pictures_that_are_shown_and_each_of_them_small():
    shown = "".join(
        (paths.ROOT / name).read_text() for name in ("README.md", "results/NUMBERS.md") if (paths.ROOT / name).exists()
    )
    pictures = [path for path in tracked_files() if path.suffix in (".png", ".webp", ".jpg", ".svg", ".gif")]
    assert pictures
    for path in pictures:
        assert path.stat().st_size < 0.2 * MIB, path
        assert path.name in shown, f"{path} is shown nowhere"


def test_every_link_of_the_readme_leads_somewhere():
    text = (paths.ROOT / "README.md").read_text()
    for place in re.findall(r"\]\((?!https?://|#)([^)# ]+)", text):
        assert (paths.ROOT / place).exists(), place
