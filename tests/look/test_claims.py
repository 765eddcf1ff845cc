"""Claims as data: what is wrong in them is refused by name, and each has its records."""

import json
import subprocess

import pandas as pd
import pytest
import yaml

from lib.look import claims
from lib.nets import weights
from lib.study import identity, paths

CLAIM = {
    "id": "a",
    "words": "A is more than b",
    "source": "a paper",
    "section": "1",
    "kind": "statement",
    "notebook": "05_cifar10_probe",
    "why": "so",
    "fails": "a random net",
    "measures": [
        {
            "metric": "m",
            "criterion": "above 0",
            "planted": {"value": 0},
            "unit": "points",
            "rows": ["b/one minus b/two"],
        }
    ],
}


def load(tmp_path, *given):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": {"Features": list(given)}}))
    return claims.load(path)


def test_a_claim_is_read_as_it_stands(tmp_path):
    claim = load(tmp_path, CLAIM)["a"]
    assert (claim.part, claim.words) == ("Features", "A is more than b")
    assert claim.measures[0].runs() == [("b/one", "m"), ("b/two", "m")]


def test_a_measure_reads_what_it_names():
    planted = claims.Planted("p less q", ["b/z"])
    measure = claims.Measure("m", "above 0", "", ["b/x over b/y", "b/z"], planted, against="n")
    assert measure.runs() == [("b/x", "m"), ("b/y", "n"), ("b/z", "m")]
    assert measure.failure().runs() == [("b/z", "p"), ("b/z", "q")]
    of_the_same = claims.Measure("m", "above 0", "", ["b/x over b/y"], claims.Planted("p"), against="n").failure()
    assert of_the_same.runs() == [("b/x", "p"), ("b/y", "n")]
    of_others = claims.Measure("m", "above 0", "", ["b/x"], claims.Planted("", ["b/x minus b/y"], "o")).failure()
    assert of_others.runs() == [("b/x", "m"), ("b/y", "o")]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": "opinion"}, "claim a: kind 'opinion' is none of figure, statement"),
        ({"measures": []}, "claim a: has measures, or says in `untested` why none counts"),
        ({"why": ""}, "claim a: says in `why`"),
        ({"fails": ""}, "claim a: says in `why`"),
        ({"colour": "red"}, "claim a: .*colour"),
    ],
)
def test_a_faulty_claim_is_refused_by_name(tmp_path, change, error):
    with pytest.raises(ValueError, match=error):
        load(tmp_path, CLAIM | change)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"criterion": "more than 3"}, "claim a: criterion 'more than 3' cannot be read"),
        ({"criterion": "above zero"}, "cannot be read"),
        ({"criterion": "above 0 points"}, "cannot be read"),
        ({"rows": []}, "claim a: no row decides 'm'"),
        ({"rows": ["one"]}, "claim a: 'one' is no row"),
        ({"rows": ["b/one plus b/two"]}, "claim a: 'b/one plus b/two' is no row"),
        (
            {"rows": ["b/one over b/two", "b/three"]},
            "claim a: 'm': one measure has `minus` or `over` in all of its rows",
        ),
        ({"rows": ["b/one", "b/one"]}, "claim a: b/one counts twice: one value per training"),
        ({"planted": {}}, "claim a: no planted failure fails 'm'"),
        ({"planted": {"rows": ["one"]}}, "claim a: 'one' is no row"),
        ({"planted": {"strength": 1}}, "claim a: .*strength"),
        ({"weight": 3}, "claim a: .*weight"),
    ],
)
def test_a_faulty_measure_is_refused_by_name(tmp_path, change, error):
    with pytest.raises(ValueError, match=error):
        load(tmp_path, CLAIM | {"measures": [CLAIM["measures"][0] | change]})


def test_a_figure_has_to_be_published(tmp_path):
    with pytest.raises(ValueError, match=r"claim a: 'no.figure' is no figure of published.csv"):
        load(tmp_path, CLAIM | {"kind": "figure", "measures": [CLAIM["measures"][0] | {"published": "no.figure"}]})


def test_a_claim_given_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="claim a is given twice"):
        load(tmp_path, CLAIM, CLAIM)


def test_a_metric_that_no_record_has_is_refused_by_name(tmp_path):
    table = pd.DataFrame({"batch": ["b", "b"], "row": ["one", "two"], "metric": ["m", "n"], "level": "toy"})
    with pytest.raises(ValueError, match="claim a: b/two records no 'm'"):
        claims.check_records(load(tmp_path, CLAIM), table)
    planted = {"planted": {"metric": "p", "rows": ["b/one"]}, "rows": ["b/one"]}
    with pytest.raises(ValueError, match="claim a: b/one records no 'p'"):
        claims.check_records(load(tmp_path, CLAIM | {"measures": [CLAIM["measures"][0] | planted]}), table)


@pytest.mark.parametrize("level", ["", None, "strong"])
def test_a_row_without_a_level_is_refused_by_name(tmp_path, level):
    table = pd.DataFrame({"batch": "b", "row": ["one", "two"], "metric": "m", "level": ["toy", level]})
    with pytest.raises(ValueError, match="claim a: the record of b/two has no level of evidence"):
        claims.check_records(load(tmp_path, CLAIM), table)


def test_the_claims_of_this_study():
    found = claims.load()
    assert 25 <= len(found) <= 40
    claims.check_records(found, pd.read_csv(paths.TABLE))
    assert {claim.notebook for claim in found.values()} <= set(identity.notebooks())


def test_kept_records_have_the_level_that_their_row_has_now():
    batches = {path.stem: yaml.safe_load(path.read_text()) for path in (paths.ROOT / "batches").glob("*.yaml")}
    for path in paths.KEPT.glob("*/*/metrics.json"):
        batch, row = batches[path.parent.parent.name], path.parent.name
        assert json.loads(path.read_text())["level"] == batch["rows"][row].get("level", batch["level"]), path


def test_git_keeps_the_claims():
    """data/ holds what was downloaded too, which git leaves out."""
    git = ["git", "-C", str(paths.ROOT), "ls-files", "--error-unmatch", str(claims.CLAIMS), str(claims.STEPS)]
    inside = subprocess.run([*git[:3], "rev-parse"], capture_output=True).returncode == 0
    assert not inside or subprocess.run(git, capture_output=True).returncode == 0


def test_each_training_has_one_value():
    """Two rows of a measure that look at one net are one value, whatever they are called."""
    for claim in claims.load().values():
        for measure in claim.measures:
            firsts = [paths.KEPT / entry.split(" ")[0] / "metrics.json" for entry in measure.rows]
            given = [json.loads(path.read_text()) for path in firsts]
            nets = [(record["notebook"], net) for record in given if (net := record["parameters"].get("net"))]
            assert len(set(nets)) == len(nets), (claim.id, measure.rows)


def test_the_published_figures():
    figures = claims.published()
    assert figures.index.is_unique
    assert figures.loc["paper.cifar10.dcgan.all", "value"] == 82.8
    assert tuple(figures.loc["paper.cifar10.dcgan.400", ["value", "plus_minus"]]) == (73.8, 0.4)
    assert figures.loc["report000.5x5.sgd.imagenet64.all", "value"] == 68.04
    assert figures.loc["others.cifar10.mindspore.310", "value"] == 78.2
    assert figures["criterion"].dropna().str.match(r"at (least|most)( -?[0-9.]+)?$").all()
    assert figures.loc[figures["mark"] == "?", "value"].isna().all(), "what is not verified is not printed"
    nameless = ~figures["source"].str.contains(r"[12]\d{3}|report 00\d|github\.com/")
    assert not nameless.any(), "whose figure it is can be looked up"


def test_every_step_of_the_ladder_compares_trainings_of_one_seed():
    """Each side's accuracy comes from a row of lift.yaml that asks the D of the row that it names.

    A further sitting counts as the training that it goes on from.
    """
    rows = yaml.safe_load((paths.ROOT / "batches" / "lift.yaml").read_text())["rows"]
    for pair in (pair for pairs in claims.ladder()[1].values() for pair in pairs):
        seeds = set()
        for row, _, updates in (side.partition("@") for side in pair):
            asked = rows[row + ("-snapshots" if updates else "-probe")]["parameters"]["net"]
            row = row.removesuffix("-mirrored")  # another probe of the same D
            assert asked == (f"run:{row}" if row in rows else "radford2015-imagenet"), row
            given = rows[row]["parameters"] if row in rows else {}
            began = given.get("onward", "").removeprefix("run:")
            begun = rows[began]["parameters"] if began in rows else given
            if began and began not in rows:
                begun = weights.load_net(began)[2]["parameters"]
            if begun:  # the authors' own was not trained here
                seeds.add(begun.get("seed", 0))
        assert len(seeds) <= 1, pair


def test_a_side_of_a_step_is_a_probe_or_a_snapshot():
    assert claims.probed("flip", "few labels") == "lift/flip-probe: trained D: few labels"
    assert claims.probed("longer-64@38298", "all labels") == (
        "lift/longer-64-snapshots: all labels, after 38,298 minibatches"
    )


def test_a_difference_of_independent_numbers():
    """Reaches of 3 and 4 make one of 5."""
    a, b = {"value": 10.0, "low": 7.0, "high": 13.0}, {"value": 4.0, "low": 0.0, "high": 8.0}
    assert claims.minus(a, b) == (6.0, 1.0, 11.0)
    assert claims.minus(a, b | {"low": 4.0, "high": 4.0}) == (6.0, 3.0, 9.0)
