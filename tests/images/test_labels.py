"""Splits, classes and attributes, read from names as people write them."""

import unicodedata

import numpy as np
import pytest

from lib.images import labels

TWO = ["a/1.png", "b/2.png"]


def keys(*names: str, places: list[str] | None = None) -> list[labels.Key]:
    return labels.keys(names, places or ["set"] * len(names), "photos")


# --- splits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "spellings"),
    {
        "train": "train Train TRAIN training Training train_set train-set trainset TrainSet training_data train2017 "
        "train_images images_train x_train trainA trainval TrainVal train_val trn training.set",
        "val": "val Val valid Validation validation_set val2017 dev devset evaluation",
        "test": "test Test testing TESTING test_set test-images testA tst test_2",
        "extra": "extra Extra extra_images",
        "unlabelled": "unlabelled unlabeled Unlabeled unlabeled_data",
        "": "cat trainer training_shoes train_station test_tube valley trains toy-trains dev_kit ü 1 2017",
    }.items(),
)
def test_spellings_of_a_split(split, spellings):
    assert {word: labels.split_of(word) for word in spellings.split()} == dict.fromkeys(spellings.split(), split)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Training/cat/1.png", "Test/cat/1.png"], [("train", "cat", "1.png"), ("test", "cat", "1.png")]),
        (["s_train/s_train/a/1.png", "s_test/s_test/b/2.png"], [("train", "a", "1.png"), ("test", "b", "2.png")]),
        (["mnist_train/0/1.png", "mnist_test/0/2.png"], [("train", "0", "1.png"), ("test", "0", "2.png")]),
        (["train/images/a/1.png", "val/images/b/1.png"], [("train", "a", "1.png"), ("val", "b", "1.png")]),
        (["images/train/1.png", "images/val/1.png"], [("train", "", "1.png"), ("val", "", "1.png")]),
        (["train/a/deep/1.png", "train/b/1.png"], [("train", "a", "deep/1.png"), ("train", "b", "1.png")]),
        (["a/1.png", "b/1.png", "2.png"], [("train", "a", "1.png"), ("train", "b", "1.png"), ("train", "", "2.png")]),
        (["test_tube/1.png", "trains/1.png"], [("train", "test_tube", "1.png"), ("train", "trains", "1.png")]),
        (["a/train/1.png", "b/big/1.png"], [("train", "a", "train/1.png"), ("train", "b", "big/1.png")]),
        (["Test/1.png"], [("test", "", "1.png")]),
    ],
)  # fmt: skip
def test_trees_with_splits(names, expected):
    assert keys(*names) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/1.png", "test/1.png", "masks/1.png"], r"test, train look like a split, masks not"),
        (["train/1.png", "bus/1.png"], r"train looks like a split, bus not"),
        (["train/a/1.png", "test/a/1.png", "banner.png"], r"test, train look like a split, banner.png not"),
        (["s_train/1.png", "s_test/1.png", "s_pred/1.png"], r"s_test, s_train look like a split, s_pred not"),
        (["train/1.png", "train_masks/1.png"], r"train looks like a split, train_masks not"),
        (["val/1.png", "validation/2.png"], r"val and validation both mean the split val"),
        (["trainA/1.png", "trainB/2.png", "testA/1.png"], r"trainA and trainB both mean the split train"),
        (["cat/train/1.png", "cat/test/2.png", "dog/train/1.png"], r"cat/test, cat/train are splits below a class"),
    ],
)  # fmt: skip
def test_trees_that_could_be_read_in_two_ways(names, message):
    with pytest.raises(ValueError, match=message) as caught:
        keys(*names)
    assert str(caught.value).startswith("photos: ")


def test_places_called_as_splits_are_splits():
    assert keys(*TWO, places=["mnist-train", "mnist-test"]) == [("train", "a", "1.png"), ("test", "b", "2.png")]
    assert keys(*TWO, *TWO, places=["train-1", "train-2", "test", "test"])[1:3] == [
        ("train", "b", "2.png"),
        ("test", "a", "1.png"),
    ]
    assert {split for split, _, _ in keys(*TWO, places=["part-1", "part-2"])} == {"train"}
    assert {split for split, _, _ in keys("val/1.png", "val/2.png", places=["train-1", "test-2"])} == {"val"}


def test_classes_are_numbered_by_train():
    some = [("train", "b", "1"), ("train", "a", "2"), ("test", "b", "3"), ("test", "c", "4"), ("test", "", "5")]
    some += [("unlabelled", "a", "6")]
    classes, y, notes = labels.number(some)
    assert classes == ("a", "b")
    assert y.tolist() == [1, 0, 1, -1, -1, -1]
    assert notes == [
        "1 images have no class folder (test/5): their label is -1",
        "1 images are of a class that train does not have (test/c/4): their label is -1",
    ]
    assert labels.number([("train", "", "1"), ("val", "all", "2")])[::2] == (("all",), [])
    assert labels.number([("test", "x", "1"), ("val", "y", "2")])[1].tolist() == [0, 1]


# --- attributes ----------------------------------------------------------------------------------------------------


def join(content: bytes | str, *files: str):
    table = labels.read_table(
        "a: attributes.csv", "attributes.csv", content.encode() if isinstance(content, str) else content
    )
    names = files or ("000.png", "001.png")
    return labels.join([table], names, keys(*names))


def columns(content: bytes | str, *files: str) -> dict:
    return join(content, *files)[0].to_dict("list")


GOOD = {
    "commas": "file,Smiling,Male\n000.png,0,1\n001.png,1,0\n",
    "any order": "file,Smiling,Male\n001.png,1,0\n000.png,0,1\n",
    "semicolons": "file;Smiling;Male\n000.png;0;1\n001.png;1;0\n",
    "tabs": "file\tSmiling\tMale\n000.png\t0\t1\n001.png\t1\t0\n",
    "bars": "file|Smiling|Male\n000.png|0|1\n001.png|1|0\n",
    "spaces": "file, Smiling , Male\n 000.png , 0, 1\n001.png,1 ,0\n",
    "Windows": "\ufefffile,Smiling,Male\r\n000.png,0,1\r\n\r\n001.png,1,0\r\n",
    "quotes": '"file","Smiling","Male"\n"000.png","0","1"\n"001.png","1","0"',
    "a path": "file,Smiling,Male\n./000.png,0,1\n001.png,1,0\n",
    "no name for the first": ",Smiling,Male\n000.png,0,1\n001.png,1,0\n",
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_tables_that_are_read(content):
    assert columns(content) == {"Smiling": [0, 1], "Male": [1, 0]}
    assert columns(content.encode("utf-16")) == columns(content)


def test_kinds_of_columns():
    table, _ = join("file,i,f,m,t,b\n000.png,-1,0.5,,a,True\n001.png,1,1e3,7,NA,false\n")
    assert table.dtypes.astype(str).tolist() == ["int64", "float64", "float64", "object", "bool"]
    assert table["m"].isna().tolist() == [True, False]
    assert table["f"].tolist() == [0.5, 1000.0]
    assert table["t"].tolist() == ["a", "NA"]
    assert table["b"].tolist() == [True, False]


BAD = {
    "a comma too many": ("file,Smiling,Male\n000.png,0,1,\n001.png,1,0,\n", "line 2 has 4 fields, and the header 3"),
    "a comma too few": ("file,Smiling,Male\n000.png,0,1\n001.png,1\n", "line 3 has 2 fields, and the header 3"),
    "a name twice": ("file,Smiling, Smiling\n000.png,0,1\n001.png,1,1\n", "its header has Smiling twice"),
    "a name missing": ("file,Smiling,\n000.png,0,1\n001.png,1,1\n", "its header has a column without a name"),
    "half of each": ("file,Age\n000.png,31\n001.png,old\n", r"line 3: Age = 'old' is no number, and others are"),
    "infinity": ("file,Age\n000.png,31\n001.png,inf\n", r"line 3: Age = 'inf' is no number"),
    "a decimal comma": ("file;Age\n000.png;1,5\n001.png;2,5\n", r"line 2: Age = '1,5' is no number.*write a point"),
    "one column": ("file\n000.png\n001.png\n", "cannot be read as a table"),
    "spaces between": ("file Smiling\n000.png 1\n001.png 0\n", "cannot be read as a table"),
    "empty": ("", "cannot be read as a table"),
    "another encoding": ("file,Straße\n000.png,1\n001.png,0\n".encode("latin-1"), "cannot be read as a table.*UTF-8"),
    "an open quote": ('file,a\n000.png,"1\n001.png,0\n', "cannot be read as a table|no row for"),
    "a row missing": ("file,a\n000.png,1\n", "has no row for 001.png .its first is for 000.png."),
    "no suffixes": ("file,a\n000,1\n001,2\n", "has no row for 000.png .its first is for 000."),
    "a row twice": ("file,a\n000.png,1\n001.png,1\n000.png,1\n", "000.png has a second row .line 4."),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_tables_that_are_refused(content, message):
    with pytest.raises(ValueError, match=message) as caught:
        columns(content)
    assert str(caught.value).startswith("a: attributes.csv: ")
    assert "\n" not in str(caught.value)


def test_an_image_has_one_row_whatever_it_is_called_by():
    with pytest.raises(ValueError, match="line 4 is about cat/a.png, as is line 2 of a: attributes.csv; keep one"):
        join("file,a\ncat/a.png,1\nb.png,1\na.png,2\n", "cat/a.png", "cat/b.png")


def test_rows_without_an_image_are_counted():
    _, notes = join("file,a\n000.png,1\n001.png,1\n002.png,1\n003.png,1\n")
    assert notes == ["a: attributes.csv has 2 rows without an image (002.png)"]


def test_unicode_forms_of_a_name_are_one_name():
    name = unicodedata.normalize("NFC", "é.png")
    assert columns(f"file,a\n{unicodedata.normalize('NFD', name)},5\n", name) == {"a": [5]}


def test_images_go_by_file_name_or_by_path():
    files = ("x/1.png", "y/1.png")
    with pytest.raises(ValueError, match=r"1.png has a second image; name them by their path"):
        columns("file,a\n1.png,1\n", *files)
    assert columns("file,a\ny/1.png,1\nx/1.png,2\n", *files) == {"a": [2, 1]}
    assert columns("file,a\n2.png,1\n1.png,2\n", "x/1.png", "y/2.png") == {"a": [2, 1]}


def test_a_table_is_for_its_folder():
    names = ["train/0.png", "test/0.png"]
    tables = [
        labels.read_table(f"a: {split}", f"{split}/attributes.csv", f"file,a\n0.png,{value}\n".encode())
        for split, value in (("test", 2), ("train", 1))
    ]
    assert labels.join(tables, names, keys(*names))[0]["a"].tolist() == [1, 2]
    other = labels.read_table("b", "test/attributes.csv", b"file,b\n0.png,1\n")
    with pytest.raises(ValueError, match=r"b: its columns are b, and a: train has a"):
        labels.join([tables[1], other], names, keys(*names))


def test_no_value_is_lost():
    values = ["1", "-2", "+3", "007"]
    table = "file,a\n" + "".join(f"{i}.png,{value}\n" for i, value in enumerate(values))
    assert np.array_equal(columns(table, *(f"{i}.png" for i in range(4)))["a"], [1, -2, 3, 7])
