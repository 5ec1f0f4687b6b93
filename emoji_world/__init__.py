"""The embedded world: a small trained Stable-Diffusion-format model that travels with the code.

Only paths live here, so that importing the package costs nothing: whoever asks for a model
folder decides with which library to open it. Drawing, training and measuring are modules
of their own (``python -m emoji_world.train``, ``python -m emoji_world.evaluate``).
"""

from pathlib import Path

__all__ = [
    "base_model_dir",
    "dino_dir",
    "example_manifest",
    "lora_catalog",
    "plain_lora_catalog",
    "presence_file",
    "weights_dir",
]

_PACKAGE = Path(__file__).resolve().parent


def weights_dir() -> Path:
    """Return the folder that holds every committed weight."""
    return _PACKAGE / "weights"


def base_model_dir() -> Path:
    """Return the base model: a folder in diffusers' ``StableDiffusionPipeline`` layout."""
    return weights_dir() / "base"


def dino_dir() -> Path:
    """Return the scoring model: a transformers ``ViTModel`` folder with its preprocessor."""
    return weights_dir() / "dino"


def presence_file() -> Path:
    """Return the weights of the presence classifier, see ``emoji_world.presence``."""
    return weights_dir() / "presence.safetensors"


def lora_catalog() -> Path:
    """Return the LoRA catalog; its URIs are relative to its own folder."""
    return weights_dir() / "loras" / "loras.yaml"


def plain_lora_catalog() -> Path:
    """Return the catalog of six instances' LoRAs that were trained in the ordinary way."""
    return weights_dir() / "loras" / "plain.yaml"


def example_manifest(name: str = "demo") -> Path:
    """Return an example manifest of the embedded world.

    Args:
        name: Name of the manifest, without its ending.

    Raises:
        FileNotFoundError: No manifest has that name; the message lists those there are.
    """
    folder = _PACKAGE / "manifests"
    path = folder / f"{name}.parquet"
    if not path.is_file():
        known = sorted(entry.stem for entry in folder.glob("*.parquet"))
        raise FileNotFoundError(
            f"no example manifest {name!r} in {folder}; there are: {', '.join(known) or 'none'}"
        )
    return path
