"""Every form of a row's LoRAs says the same, and what cannot be told apart is refused."""

from decimal import Decimal

import pytest

from manifests.rows.loras import requested_loras

BOTH = [("cat", 0.5), ("dog", None)]


@pytest.mark.parametrize(
    "cell",
    [
        "cat:0.5;dog",
        "cat:0.5|dog",
        "cat:0.5, dog",
        "cat:0.5,dog,",
        "cat:0.5\r\ndog",
        '"cat:0.5; dog"',
        "['cat:0.5', 'dog']",
        "('cat:0.5', 'dog')",
        "['cat:0.5' 'dog']",
        "[cat:0.5, dog]",
        "[('cat', 0.5), 'dog']",
        "{'cat': 0.5, 'dog': None}",
        "[{'lora': 'cat', 'weight': 0.5}\n {'lora': 'dog', 'weight': nan}]",
        "{'lora': ['cat', 'dog'], 'weight': [0.5, None]}",
        "{'lora': array(['cat', 'dog'], dtype=object), 'weight': array([0.5, nan])}",
        [("cat", 0.5), ("dog", None)],
        ("cat:0.5", "dog"),
        {"cat": Decimal("0.50"), "dog": None},
        {"lora": ["cat", "dog"], "weight": [Decimal("0.5"), float("nan")]},
        {"lora": ["cat", "dog"], "weight": [0.5, None], "subject": None},
        [{"lora": "cat", "weight": Decimal("0.5"), "region": None}, "dog"],
    ],
)
def test_every_form_says_the_same(cell):
    requests, findings = requested_loras(cell)
    assert not findings
    assert [(request.lora, request.weight) for request in requests] == BOTH


@pytest.mark.parametrize("cell", [None, "", " ; ", "[]", [], {"lora": [], "weight": []}])
def test_no_loras(cell):
    assert requested_loras(cell) == ((), [])


def test_a_struct_of_lists_keeps_subjects_and_regions_with_their_lora():
    box = [0.0, 0.0, 0.5, 1.0]
    cell = {"lora": ["cat", "dog"], "subject": ["kitten", None], "region": [None, box]}
    (cat, dog), findings = requested_loras(cell)
    assert not findings
    assert (cat.subject, cat.region, dog.subject) == ("kitten", None, None)
    assert dog.region is not None
    assert dog.region.box == tuple(box)


@pytest.mark.parametrize(
    ("cell", "field", "sentence"),
    [
        ("cat:0,8;dog", "loras", "should write weights with a point, as in cat:0.8"),
        ("cat:0,8", "loras", "got 'cat:0,8'"),
        ({"lora": ["cat", "dog"], "weight": [0.5]}, "loras", "should have lists of one length"),
        ({"lora": ["cat", "dog"], "weight": 0.5}, "loras", "should have lists of one length"),
        ({"weight": 0.5}, "loras[0].lora", "is required and not given"),
        ({"name": "cat"}, "loras[0].lora", "is required and not given"),
        ([("cat", "dog")], "loras[0]", "got ('cat', 'dog')"),
        ("['cat', 'dog'", "loras", "no list as Python, NumPy or DuckDB write it"),
        (b"cat", "loras", "should be a list of names or structs"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(cell, field, sentence):
    requests, findings = requested_loras(cell)
    assert not requests
    assert findings[0][0] == field
    assert sentence in findings[0][1]
