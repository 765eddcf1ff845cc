"""README and NUMBERS.md say what the records say, and fit their budgets."""

import json
import re

import pandas as pd
import pytest
from PIL import Image

from lib.look import charts, claims, numbers, pages, verdicts
from lib.study import paths, tables
from lib.study.tables import COLUMNS


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(paths.TABLE)


@pytest.mark.parametrize("name", numbers.PARTS)
def test_the_readme_shows_what_the_records_say(name, table):
    """`make readme` writes it; a README that says something else than results/table.csv is a lie."""
    text = numbers.README.read_text()
    shown = text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]
    assert shown == numbers.PARTS[name](table)


def test_numbers_are_those_of_the_records(table):
    assert numbers.NUMBERS.read_text() == numbers.to_markdown(table)


def test_the_figure_shows_the_numbers_of_the_records(table):
    with Image.open(charts.HEADLINE) as image:
        assert image.text["Description"] == charts.headline_json(table)
    assert len(json.loads(charts.headline_json(table))) == len(charts.main_lines(table))
    with Image.open(charts.COURSES) as image:
        assert image.text["Description"] == charts.numbers_in(charts.show_courses(table))


def test_the_readme_is_read_in_five_minutes():
    """Tables take half of it at most, as the eye counts them: links are their words."""
    text = numbers.README.read_text()
    read = re.sub(r"\]\([^)]*\)", "]", text)
    tables = sum(len(line.encode()) for line in read.splitlines() if line.startswith("|"))
    assert len(text.encode()) <= 20 * 1024
    assert tables <= len(text.encode()) / 2


def test_sentences_of_the_readme_are_short():
    """At most 25 words each, as the eye counts them: links are their words, code is one word."""
    text = re.sub(
        r"<!-- main number -->.*?<!-- /main number -->|<!-- claims -->.*?<!-- /claims -->",
        "",
        numbers.README.read_text(),
        flags=re.DOTALL,
    )
    text = re.sub(r"```.*?```|^\|.*$|^#.*$|!\[[^]]*\]\([^)]*\)", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", text))
    sentences = [
        s for part in re.split(r"\n\s*\n|\n- ", text) for s in re.split(r"(?<=[.?!:;])\s+", " ".join(part.split()))
    ]
    long = [s for s in sentences if len(s.split()) > 25]
    assert not long, long


def test_links_to_claims_lead_to_their_numbers():
    text = numbers.NUMBERS.read_text()
    readme = numbers.README.read_text()
    linked = set(re.findall(r"NUMBERS\.md#([\w-]+)", readme))
    assert linked and linked <= set(claims.load()), linked - set(claims.load())
    for claim in claims.load():
        assert f'<a id="{claim}"></a>' in text


@pytest.mark.parametrize("path", sorted((paths.ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_tell_what_the_kept_runs_say(path, table):
    text = path.read_text(encoding="utf-8")
    assert text == numbers.fill_notebook(path, table)
    assert ("<!-- kept -->" in text) == (path.stem[:2] not in ("90", "99"))


def test_executed_notebooks_are_linked_where_git_has_them(table):
    assert pages.executed("authors/imagenet-probe") == "results/kept/authors/imagenet-probe/notebook.ipynb"
    assert pages.executed("authors/none") == ""
    linked = "[cifar10/pixels](kept/cifar10/pixels/notebook.ipynb) minus `real/none`"
    assert pages.link("cifar10/pixels minus real/none") == linked
    assert pages.runs_of(["a/b-1 over c/d; a/b-2 over c/d"]) == ["a/b-1", "c/d", "a/b-2"]
    shown = numbers.README.read_text() + numbers.NUMBERS.read_text()
    for path in paths.KEPT.glob("*/*/notebook.ipynb"):
        run = f"{path.parent.parent.name}/{path.parent.name}"
        assert run in pages.runs_of(table["batch"] + "/" + table["row"])
        assert run.startswith("quick/") or f"kept/{run}/notebook.ipynb" in shown, run


def test_what_decides_a_claim_is_kept_executed(table):
    """Of the seeds of one setting the first, but for runs of older code, of which only the numbers are left."""
    older = set(claims.runs_of(table)[table["code"] == "older"])
    _, values, _ = verdicts.judge_all(table)
    first = values[values["side"] != ""].groupby(["claim", "level", "metric", "unit"])["run"].first()
    first = first.str.split(";").str[0]  # seeds that are pooled stand in one line
    assert not [run for run in pages.runs_of(first) if not pages.executed(run) and run not in older]


def line(run, metric, value, data, **more):
    batch, _, row = run.partition("/")
    known = dict(batch=batch, row=row, metric=metric, value=value, data=data, notebook="05_cifar10_probe", departs="")
    return dict.fromkeys(COLUMNS) | known | more


def test_a_lossy_copy_does_not_stand_beside_the_exact_images():
    exact, lossy = "cifar10", {"code": "older", "run_id": "05-a", "note": verdicts.NOT_EXACT}
    table = pd.DataFrame([
        line("authors/imagenet-probe", "trained D: few labels", 70.0, exact, code=""),
        line("authors/imagenet-probe", "trained D: all labels", 80.0, exact, code=""),
        line("cifar10/kmeans", "k-means: all labels", 73.0, exact, **lossy),
        line("cifar10/wider", "k-means: all labels", 81.0, exact, code="older"),
        line("cifar10/apart", "k-means: all labels", 82.0, exact, departs="tested on training images set apart"),
        line("cifar10/old", "k-means: all labels", 83.0, exact, **lossy),
    ])  # fmt: skip
    shown, whole = charts.main_lines(table).set_index("who"), charts.main_lines(table, whole=True).set_index("who")
    authors = shown.loc["**here: the authors' D**, four of six layers", ["few labels", "images", "marks"]]
    assert tuple(authors) == (70.0, "exact", "")
    kmeans = "here: k-means, 1,600 units"
    assert tuple(whole.loc[kmeans, ["all labels", "images", "marks"]]) == (73.0, "lossy copy", "†‡")
    assert whole.loc["here: cifar10/wider: k-means", "all labels"] == 81.0, "a new row of the exact images is added"
    assert set(whole.index) - set(shown.index) == {kmeans, "here: cifar10/wider: k-means"}
    assert shown.index[0] == "the paper: Exemplar CNN" and shown["all labels"].is_monotonic_decreasing


def test_a_record_may_outlive_the_figure_that_it_stood_beside():
    given = [("paper.cifar10.dcgan.all", 80.0), ("gone.cifar10", 41.0)]
    lines = [line("cifar10/a", f"m{value}", value, "cifar10", published=figure) for figure, value in given]
    shown = numbers._beside(pd.DataFrame(lines))
    assert "m80.0" in shown and "m41.0" not in shown


def test_one_number_of_a_claim():
    values = pd.DataFrame({
        "claim": "a", "level": "toy", "metric": "m", "unit": "points", "side": ["for", "open", ""],
        "value": [1.0, 2.0, 9.0], "low": [0.5, 0, 0], "high": [1.5, 4, 9], "marks": ["†", "", "‡"],
    })  # fmt: skip
    assert verdicts.number_of(values, "a", "toy") == "1.50 (1.00 to 2.00, 2 runs)† points"
    assert verdicts.number_of(values[:1], "a", "toy") == "1.00 (0.500 to 1.50)† points"
    mixed = pd.concat([values.assign(side=side, unit=side) for side in ("for", "against")], ignore_index=True)
    assert verdicts.number_of(mixed, "a", "toy").endswith(" against"), "what is least for the claim is told"


def test_numbers_are_written_short():
    assert verdicts.number(1423.4, 0.0167, 71234.5) == "1,423 (0.0167 to 71,234)"
    assert verdicts.number(-6.9231) == "−6.92"
    assert verdicts.number(12.0, 0, 100) == "12.0 (0 to 100)"


def test_published_figures_are_not_rounded(table):
    assert "| StyleGAN2-ADA's D, four layers |  | 77.58 | cited |" in numbers.main_number(table, whole=True)
    assert "### DCGAN 5x5 trained on ImageNet64 + L2-SVM: 63.08 %" in numbers.to_markdown(table)


def test_a_readme_without_its_marks_is_refused(table):
    with pytest.raises(ValueError, match=r"README.md has no marks <!-- main number -->"):
        numbers.fill("no marks", table, numbers.PARTS)


def test_a_table_keeps_its_columns():
    assert numbers.grid(["a", "b"], [["x|y", 1]]) == "| a | b |\n| --- | --- |\n| x/y | 1 |"


def test_the_table_is_that_of_the_kept_records(table):
    """But for `code`, which says how the records stood to the code of the day that wrote it."""
    kept = tables.read(kept_only=True).drop(columns="code")
    assert len(kept) == len(table)
    assert (kept["metric"] == table["metric"]).all() and (kept["run_id"] == table["run_id"]).all()
    pd.testing.assert_series_equal(kept["value"], table["value"], rtol=1e-5)


def test_speed_is_told_as_it_was_recorded(monkeypatch, tmp_path):
    (tmp_path / "speed.csv").write_text(
        "net,loop,here,ratio,share,device,date\ntutorial64,87,287,3.3,0.31,two cores,2026-01-01\n"
    )
    monkeypatch.setattr(numbers, "SPEED", tmp_path / "speed.csv")
    last = numbers.speed_table(pd.DataFrame()).splitlines()[-1]
    assert last == "| tutorial64 | two cores | 87 | 287 | 3.3 | 0.31 |"
