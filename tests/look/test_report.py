"""A batch as pages: all there, nothing fetched, every figure named."""

import json
import re
import subprocess
from fnmatch import fnmatch
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from lib.look import claims, pages, report
from lib.study import paths, tables

WALK = "02_walk_latent_space"
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
    """A batch of two rows as it stands after a run: one finished, one that failed."""
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
    return tmp_path / "site" / "quick"


def test_a_site(site):
    assert report.write("quick") == site / "index.html"
    assert {path.name for path in site.iterdir()} == {
        "index.html",
        "digits-walk.html",
        "failed.html",
        "digits-walk.walk.png",
    }
    pages = {path.stem: Page(path.read_text()) for path in site.glob("*.html")}
    for name, page in pages.items():
        assert all(place.startswith(("data:", "#")) or (site / place).is_file() for place in page.fetched), name
        assert page.alts, name
        assert not [alt for alt in page.alts if len(alt) < 8 or "No description" in alt], name
    index = (site / "index.html").read_text()
    assert "Claims that these runs decide" in index
    assert '<a href="digits-walk.html">digits-walk</a></td>' in index, (
        "a claim leads to the page of the run that decides it"
    )
    assert re.search("failed.html.*not finished", index)
    assert {"digits-walk.html", "failed.html"} <= set(pages["index"].links)
    assert "index.html" in pages["digits-walk"].links


def test_the_front_page_has_every_claim(site):
    report.write("quick")
    text = (site.parent / "index.html").read_text()
    page = Page(text)
    assert all((site.parent / place).is_file() for place in page.fetched) and len(page.alts) == 1
    assert page.links == ["quick/index.html"]
    known = claims.load()
    assert text.count("<tr>") == len(known) and all(escape(claim.words) in text for claim in known.values())
    assert '<span class="badge supported">supported</span>' in text and f"{len(known)} claims: 1 supported" in text


def test_the_player_is_on_the_page_with_its_buttons(site):
    report.write("quick")
    page = (site / "digits-walk.html").read_text()
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


def test_a_batch_is_called_what_it_is_called(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "KEPT", tmp_path)
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    page = report.index("a<b>&c", {}, {})
    assert "<title>batch a&lt;b&gt;&amp;c</title>" in page and "a<b>" not in page


def test_nothing_run_says_what_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    with pytest.raises(ValueError, match="no executed notebook of quick in .*: `make study` makes them"):
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
