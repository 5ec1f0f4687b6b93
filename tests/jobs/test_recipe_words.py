"""Names of embeddings in a picture's recipe, where the file may be called something else by now."""

from hostile_pictures import recipe

from clora_core.recipe.reading.embedded import EmbeddedWord
from jobs.pictures.recipe import checked_recipe

LORA = {
    "name": "sea",
    "digest": "0" * 64,
    "kind": "style",
    "weight": 1.0,
    "subject": None,
    "trigger": None,
    "region_json": None,
}


def read(**fields):
    given = recipe([LORA | fields], "1" * 64)
    return checked_recipe(given, width_px=given["width"], height_px=given["height"])


def test_a_recipe_keeps_what_its_texts_call_an_embedding():
    found, findings = read(words=[{"name": "seaside", "num_vectors": 3}])
    assert not findings
    assert found is not None
    (lora,) = found.row({}).loras
    assert lora.words == (EmbeddedWord("seaside", 3),)


def test_a_recipe_without_embeddings_is_read_as_before():
    found, findings = read()
    assert not findings
    assert found is not None
    assert found.row({}).words == ()


def test_an_embedding_of_no_vectors_is_refused():
    found, findings = read(words=[{"name": "seaside", "num_vectors": 0}])
    assert found is None
    assert [column for column, _ in findings] == ["loras[0].words[0].num_vectors"]
