"""Names of folders and categories, matched to a model's classes."""

import pytest

from evaluation.classes import match, read_mapping
from evaluation.dataset import DataError
from zoo.labels import read_labels

IMAGENET = read_labels("imagenet1k")


@pytest.mark.parametrize(
    ("name", "class_id"),
    [
        ("Egyptian cat", 285),
        ("egyptian_CAT", 285),
        ("n02124075", 285),
        ("285", 285),
        ("n01440764", 0),
        ("n02123394", 283),  # Persian cat
        ("n15075141", 999),
        ("n02012849", 134),  # the bird; its homonym is the machine
    ],
)
def test_names_of_imagenet_classes_are_matched(name, class_id):
    assert match([name], IMAGENET) == {name: class_id}


def test_wordnet_ids_are_in_order():
    ids = read_labels("imagenet1k_wordnet")
    assert len(ids) == len(set(ids)) == 1000
    assert list(ids) == sorted(ids)


def test_a_label_takes_precedence_over_an_id():
    assert match(["1"], ["0", "7", "1"]) == {"1": 2}


def test_a_mapping_file_gives_the_class_of_a_name(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("# mine\ncats Egyptian cat\nmy dogs\tdalmatian\n\nb,967\n")
    names = read_mapping(path)
    assert names == {"cats": "Egyptian cat", "my dogs": "dalmatian", "b": "967"}
    assert match(["cats", "b"], IMAGENET, names) == {"cats": 285, "b": 967}
    path.write_text("cats\n")
    with pytest.raises(DataError, match=r"classes\.txt: line 1 is 'cats'; expected a folder's name"):
        read_mapping(path)


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["egyptian cats"], IMAGENET, r"'egyptian cats'\. Did you mean Egyptian cat.*classes\.txt"),
        (["n02124075"], ["cat", "dog"], "WordNet ids are known for models with ImageNet's 1000 labels only"),
        (["1000"], IMAGENET, "1 name means none of the model's 1000 classes"),
        (["285", "Egyptian cat"], IMAGENET, r"'285' and 'Egyptian cat' both mean the class 285 \(Egyptian cat\)"),
    ],
)
def test_unknown_names_are_refused(names, labels, message):
    with pytest.raises(DataError, match=message):
        match(names, labels)
