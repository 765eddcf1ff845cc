"""Verdicts by rule, on a table and claims written out."""

import pandas as pd
import pytest

from lib.look import verdicts
from lib.study import paths
from lib.study.runs import COLUMNS

CLAIMS = pd.DataFrame(
    [
        ("a.figure", "paper", "an accuracy", 80.0, 0.5, "at least"),
        ("a.rough.figure", "paper", "an accuracy", 80.0, 2.0, "at least"),
        ("an.error", "paper", "an error", 20.0, None, "at most"),
        ("a.bound", "paper", "a walk", None, None, "at most 4"),
        ("a.picture", "paper", "a figure", None, None, None),
        ("unrun", "report", "an accuracy", 50.0, None, "at least"),
    ],
    columns=["id", "source", "claim", "value", "plus_minus", "criterion"],
)


def table(**columns):
    line = dict.fromkeys(COLUMNS) | {"batch": "b", "row": "r", "data": "d", "departs": ""} | columns
    return pd.DataFrame([line])


def verdict(**columns):
    judged = verdicts.compare(table(**columns), CLAIMS).set_index("id").loc[columns["published"]]
    return judged["holds"], judged["verdict"]


@pytest.mark.parametrize(
    ("published", "low", "high", "holds"),
    [
        ("a.figure", 79.0, 81.0, True),  # within a point of 80 on both sides
        ("a.figure", 78.9, 79.6, False),
        ("a.figure", 80.4, 81.1, False),
        ("a.figure", 85.0, 86.0, False),  # far above is another measurement
        ("a.figure", 48.3, 91.7, False),  # two draws, 60 and 80: their interval reaches everything
        ("a.rough.figure", 78.0, 82.0, True),  # within its own +-2
        ("a.rough.figure", 77.9, 82.0, False),
        ("an.error", 19.0, 21.0, True),
        ("an.error", 18.0, 19.0, False),
        ("a.bound", 2.0, 3.9, True),
        ("a.bound", 3.0, 4.1, False),  # a bound of ours: the whole interval has to lie below
    ],
)
def test_criteria(published, low, high, holds):
    ours = dict(published=published, value=(low + high) / 2, low=low, high=high)
    assert verdict(**ours) == (holds, "reproduced" if holds else "not reproduced")
    assert verdict(**ours, departs="drawn faces") == (holds, "not comparable")


def test_a_figure_is_not_met_by_one_number_without_an_interval():
    holds, given = verdict(published="a.figure", value=80.0)
    assert pd.isna(holds) and given == "not scored"
    assert verdict(published="a.bound", value=3.0) == (True, "reproduced"), "a bound of ours takes it as it is"


def test_pictures_and_what_was_not_run():
    holds, given = verdict(published="a.picture", value=0.5)
    assert pd.isna(holds) and given == "not scored"
    judged = verdicts.compare(table(published="a.picture", value=0.5), CLAIMS).set_index("id")
    assert judged.loc["unrun", "verdict"] == "not run"
    assert set(judged["verdict"]) <= set(verdicts.VERDICTS)


def test_settings_over_their_seeds():
    rows = [("paper-0", "swing", 0.1), ("paper-1", "swing", 0.3), ("paper-1", "other", 9), ("no-bn-0", "swing", 0.5)]
    lines = [table(batch="ablation", row=row, metric=metric, value=value) for row, metric, value in rows]
    lines += [
        table(batch="b", row="paper-2", metric="swing", value=7),
        table(batch="ablation", row="x-0-probe", metric="D", value=1),
    ]
    spread = verdicts.over_seeds(pd.concat(lines), "ablation", ["swing", "D"])
    assert spread["seeds"].to_dict() == {"no-bn": 1, "paper": 2, "x": 1}
    assert spread.loc["paper", "swing"] == "0.20 (0.10 to 0.30)" and spread.loc["x", "D"] == "1.00"
    assert spread.loc["x", "swing"] == ""
    assert verdicts.over_seeds(pd.concat(lines), "unknown", ["swing"]).empty


def lines_of(measured):
    """A table of probes: BATCH, ROW: line of the probe, accuracies with few and with all labels."""
    return pd.concat(
        [
            table(batch=batch, row=row, metric=f"{line}: {labels} labels", value=value)
            for (batch, row), (line, *values) in measured.items()
            for labels, value in zip(("few", "all"), values, strict=False)
        ]
    )


def test_the_shortfall_of_the_trainings_mean_from_each_bar():
    measured = {
        ("paper", "tinyimagenet32-probe"): ("trained D", 61.0, 71.0),
        ("paper", "tinyimagenet32-probe-seed1"): ("trained D", 62.0, 71.5),
        ("cifar10", "kmeans"): ("k-means", 61.0),
    }
    short = verdicts.shortfall(lines_of(measured)).set_index(["bar", "labels"])["short by"]
    assert short["the paper", "few labels"] == pytest.approx(73.8 - 61.5)
    assert short["report 000's best", "all labels"] == pytest.approx(68.04 - 71.25)
    assert short["1-layer k-means, here", "few labels"] == -0.5
    assert pd.isna(short["1-layer k-means, here", "all labels"]), "not run"
    one = verdicts.shortfall(lines_of(dict(list(measured.items())[:1])))
    assert one["ours"].isna().all(), "a mean over all trainings, or none"


def test_the_main_number_stands_among_its_bars_from_the_least():
    measured = {
        ("paper", "tinyimagenet32-probe"): ("trained D", 61.5, 71.04),
        ("paper", "tinyimagenet32-probe-seed1"): ("trained D", 62.5, 71.0),
        ("cifar10", "kmeans"): ("k-means", 62.0, 60.0),
    }
    shown = verdicts.bars_to_markdown(lines_of(measured)).splitlines()
    head, _, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in shown)
    assert head[1:] == ["400 labels per class", "all labels"]
    assert cells[0] == ["**this study's D** (`paper/tinyimagenet32-probe`)", "61.5", "71.0"]
    assert cells[1] == ["1-layer k-means, here", "62.0", "60.0"]
    assert cells[2] == ["**this study's D** (`paper/tinyimagenet32-probe-seed1`)", "62.5", "71.0"]
    assert cells[3:5] == [["report 000's best", "63.1", "68.0"], ["the paper", "73.8", "82.8"]]


def test_every_bar_stands_in_the_table():
    assert verdicts.shortfall(pd.read_csv(paths.TABLE)).notna().all(axis=None)


def test_the_published_figures():
    claims = verdicts.published().set_index("id")
    assert claims.index.is_unique
    assert claims.loc["paper.cifar10.dcgan.all", "value"] == 82.8
    assert tuple(claims.loc["paper.cifar10.dcgan.400", ["value", "plus_minus"]]) == (73.8, 0.4)
    assert claims.loc["report000.5x5.sgd.imagenet64.all", "value"] == 68.04
    assert claims["criterion"].dropna().str.match(r"at (least|most)( -?[0-9.]+)?$").all()
    assert claims.loc[claims["mark"] == "?", "value"].isna().all(), "what is not verified is not printed"


@pytest.mark.parametrize("name", verdicts.TABLES)
def test_the_readme_shows_the_tables(name):
    """`make readme` writes them; a README that says something else than results/table.csv is a lie."""
    text = (paths.ROOT / "README.md").read_text()
    shown = text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]
    assert shown == verdicts.TABLES[name](pd.read_csv(paths.TABLE))


def test_published_figures_have_one_line_each():
    assert verdicts.published()["id"].is_unique
