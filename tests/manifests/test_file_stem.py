"""What files are called, which is also the word of an embedding without a name of its own."""

import pytest

from clora_core.recipe.lora.embeddings import Embedding
from manifests.loras.embeddings import embedded_words
from manifests.loras.file_stem import file_stem

COMMIT = "0" * 40


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/loras/toy-cat.safetensors", "toy-cat"),
        ("/loras/100%20wool.safetensors", "100%20wool"),
        ("/loras/my-cat/adapter_model.safetensors", "my-cat"),
        ("/loras/ .safetensors", " .safetensors"),
        ("owner/name@main:toy-cat.safetensors", "toy-cat"),
        (f"owner/name@{COMMIT}:toy-cat.safetensors", "toy-cat"),
        ("owner/name@main:words/toy-cat.v2.safetensors", "toy-cat.v2"),
        ("owner/name@main:adapter_model.safetensors", "name"),
        ("owner/name@refs/pr/1:toy.safetensors", "toy"),
        ("https://x.org/y%20z.safetensors", "y z"),
        ("https://x.org/a%2Fb.safetensors", "a_b"),
        ("https://x.org/%20.safetensors", " .safetensors"),
        ("s3://bucket/100%25.safetensors?region=eu", "100%"),
    ],
)
def test_a_file_is_called_what_people_call_it(place, name):
    assert file_stem(place) == name
    nameless = Embedding(
        name=None,
        tensors={"text_encoder": "emb_params"},
        widths={"text_encoder": 768},
        num_vectors=2,
    )
    (word,) = embedded_words([nameless], place)
    assert word.name == name.strip()
