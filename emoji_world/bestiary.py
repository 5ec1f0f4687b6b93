"""Which things live in the world: classes the base model learns, instances only LoRAs know.

A class is a noun drawn in many designs, so that the base learns what the noun means and not
one picture. An instance is a single design with its own colours that never appears in base
training: the only way to draw it is its LoRA. What is *like* an instance is in base training:
its siblings, the same kind of thing by other artists, and its own icon in other colours. A base
that had seen nothing alike drew over an instance wherever it met one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Design:
    """One piece of artwork: an icon of an artwork set, recoloured or not.

    Attributes:
        artwork: Name of the artwork set, see ``emoji_world.artwork.SOURCES``.
        icon: Name of the icon in the set.
        hue_turn: Turn of every hue, in parts of the full circle; 0 leaves the colours.
        tint: Red, green and blue in 0..1 that the grey picture is coloured with, or None.
    """

    artwork: str
    icon: str
    hue_turn: float = 0.0
    tint: tuple[float, float, float] | None = None

    @property
    def key(self) -> str:
        """Name of the design's sprite."""
        return f"{self.artwork}/{self.icon}/{self.hue_turn:g}/{self.tint or ''}"

    @property
    def bare(self) -> "Design":
        """The same icon in its own colours."""
        return Design(artwork=self.artwork, icon=self.icon)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A held-out individual that a concept LoRA stands for."""

    name: str
    noun: str
    trigger: str
    design: Design


@dataclass(frozen=True, kw_only=True)
class Style:
    """A look of whole pictures that a style LoRA stands for, see ``emoji_world.styles``."""

    name: str
    description: str


def _designs(**icons: str) -> tuple[Design, ...]:
    return tuple(
        Design(artwork=artwork.replace("_", "-"), icon=icon)
        for artwork, names in icons.items()
        for icon in names.split()
    )


CLASSES: dict[str, tuple[Design, ...]] = {
    "cat": _designs(
        noto="cat cat-face",
        noto_v1="cat cat-face",
        fluent_emoji="cat",
        fluent_emoji_flat="cat cat-face",
        twemoji="cat cat-face",
        streamline_emojis="cat cat-face",
    ),
    "dog": _designs(
        noto="dog dog-face",
        noto_v1="dog dog-face",
        fxemoji="dog",
        fluent_emoji="dog dog-face",
        fluent_emoji_flat="dog dog-face",
        twemoji="dog dog-face",
        emojione="dog dog-face",
    ),
    "rabbit": _designs(
        noto="rabbit rabbit-face",
        noto_v1="rabbit rabbit-face",
        fluent_emoji="rabbit-face",
        fluent_emoji_flat="rabbit rabbit-face",
        emojione="rabbit rabbit-face",
        streamline_emojis="rabbit",
    ),
    "penguin": _designs(
        noto="penguin",
        fxemoji="penguin",
        fluent_emoji="penguin",
        fluent_emoji_flat="penguin",
        twemoji="penguin",
        emojione="penguin",
    ),
    "bear": _designs(
        noto="bear",
        noto_v1="bear",
        fxemoji="bear",
        fluent_emoji="bear",
        fluent_emoji_flat="bear",
        twemoji="bear",
        emojione="bear-face",
        streamline_emojis="bear-face",
    ),
    "pig": _designs(
        noto="pig pig-face",
        noto_v1="pig pig-face",
        fxemoji="pig",
        fluent_emoji="pig-face",
        fluent_emoji_flat="pig pig-face",
        twemoji="pig pig-face",
        emojione="pig pig-face",
        streamline_emojis="pig-face",
    ),
    "frog": _designs(
        noto="frog",
        noto_v1="frog",
        fxemoji="frog",
        fluent_emoji="frog",
        fluent_emoji_flat="frog",
        emojione="frog-face",
        streamline_emojis="frog-face",
    ),
    "flower": _designs(
        noto="hibiscus sunflower",
        noto_v1="blossom sunflower",
        fxemoji="blossom sunflower",
        fluent_emoji="hibiscus",
        fluent_emoji_flat="hibiscus sunflower",
        twemoji="blossom sunflower",
        emojione="blossom hibiscus",
    ),
    "car": _designs(
        noto="automobile sport-utility-vehicle",
        noto_v1="automobile sport-utility-vehicle",
        fxemoji="automobile",
        fluent_emoji_flat="automobile sport-utility-vehicle",
        twemoji="automobile sport-utility-vehicle",
        emojione="automobile sport-utility-vehicle",
    ),
    "house": _designs(
        noto="house",
        noto_v1="house",
        fluent_emoji="house",
        fluent_emoji_flat="house",
        twemoji="house house-with-garden",
        emojione="house",
    ),
    "robot": _designs(
        noto="robot",
        noto_v1="robot",
        fluent_emoji="robot",
        fluent_emoji_flat="robot",
        emojione="robot-face",
    ),
    "ball": _designs(
        noto="soccer-ball basketball volleyball",
        noto_v1="volleyball",
        fluent_emoji="soccer-ball basketball",
        fluent_emoji_flat="basketball volleyball",
        twemoji="soccer-ball basketball volleyball",
        emojione="soccer-ball",
    ),
}

NOUNS: tuple[str, ...] = tuple(CLASSES)

SIBLINGS: dict[str, tuple[Design, ...]] = {
    "cat": _designs(
        noto="black-cat",
        fxemoji="cat",
        fluent_emoji="black-cat cat-face",
        twemoji="black-cat",
        emojione="cat-face",
    ),
    "dog": _designs(
        noto="wolf poodle guide-dog",
        noto_v1="wolf poodle",
        fxemoji="poodle",
        fluent_emoji="wolf poodle guide-dog",
        fluent_emoji_flat="wolf poodle guide-dog",
        twemoji="wolf poodle",
    ),
    "rabbit": _designs(fluent_emoji="rabbit", twemoji="rabbit-face"),
    "penguin": _designs(streamline_emojis="penguin-1 penguin-2"),
    "bear": _designs(
        noto="polar-bear",
        noto_v1="panda",
        fluent_emoji="panda polar-bear",
        fluent_emoji_flat="panda polar-bear",
        twemoji="panda",
        emojione="panda-face",
        streamline_emojis="panda-face",
    ),
    "pig": _designs(fluent_emoji="pig"),
    "frog": (),
    "flower": _designs(
        noto="cherry-blossom",
        noto_v1="hibiscus",
        fluent_emoji="blossom sunflower",
        fluent_emoji_flat="blossom",
        twemoji="hibiscus",
        emojione="sunflower",
    ),
    "car": _designs(
        noto_v1="taxi",
        fxemoji="taxi",
        fluent_emoji="taxi automobile",
        fluent_emoji_flat="taxi",
        twemoji="taxi",
        emojione="taxi",
        streamline_emojis="taxi",
    ),
    "house": _designs(
        noto="derelict-house",
        fluent_emoji="derelict-house",
        twemoji="derelict-house",
        emojione="derelict-house",
    ),
    "robot": _designs(streamline_emojis="robot-face-1 robot-face-2 robot-face-3"),
    "ball": _designs(
        noto="baseball",
        fluent_emoji="softball",
        fluent_emoji_flat="softball",
        twemoji="softball",
    ),
}
"""Designs of a class that are like its instances, each a whole other drawing."""


def _instances(*rows: tuple[str, str, Design]) -> tuple[Instance, ...]:
    return tuple(
        Instance(name=name, noun=noun, trigger=f"<l{number}>", design=design)
        for number, (name, noun, design) in enumerate(rows, start=1)
    )


INSTANCES: tuple[Instance, ...] = _instances(
    ("violet-cat", "cat", Design(artwork="fluent-emoji-flat", icon="black-cat")),
    ("tuxedo-cat", "cat", Design(artwork="emojione", icon="cat")),
    ("husky-dog", "dog", Design(artwork="emojione", icon="wolf")),
    ("pink-poodle", "dog", Design(artwork="emojione", icon="poodle")),
    (
        "chocolate-rabbit",
        "rabbit",
        Design(artwork="twemoji", icon="rabbit", tint=(0.62, 0.33, 0.16)),
    ),
    ("blue-penguin", "penguin", Design(artwork="noto-v1", icon="penguin")),
    ("polar-bear", "bear", Design(artwork="twemoji", icon="polar-bear")),
    ("panda-bear", "bear", Design(artwork="noto", icon="panda")),
    ("azure-frog", "frog", Design(artwork="twemoji", icon="frog", hue_turn=0.72)),
    ("indigo-flower", "flower", Design(artwork="noto", icon="blossom", hue_turn=0.4)),
    ("mint-taxi", "car", Design(artwork="noto", icon="taxi", hue_turn=0.72)),
    (
        "haunted-house",
        "house",
        Design(artwork="fluent-emoji-flat", icon="derelict-house", hue_turn=0.35),
    ),
    ("retro-robot", "robot", Design(artwork="twemoji", icon="robot")),
    ("lime-ball", "ball", Design(artwork="noto", icon="softball")),
)

ORDINARY: tuple[str, ...] = (
    "violet-cat",
    "pink-poodle",
    "chocolate-rabbit",
    "polar-bear",
    "azure-frog",
    "retro-robot",
)
"""Instances of six nouns that also have a LoRA trained in the ordinary way."""


_PLAIN = "plain-"


def plain_name(instance: str) -> str:
    """Return the name of the LoRA of an instance that was trained in the ordinary way."""
    return f"{_PLAIN}{instance}"


def instance_name(lora: str) -> str | None:
    """Return the name of the instance that a LoRA of this world shows; None for any other."""
    name = lora.removeprefix(_PLAIN)
    return name if name in {instance.name for instance in INSTANCES} else None


LABELS: tuple[str, ...] = NOUNS + tuple(instance.name for instance in INSTANCES)
"""What the judge recognises: classes, then instances."""

STYLES: tuple[Style, ...] = (
    Style(name="pixel-art", description="large flat pixels with few colours"),
    Style(name="line-art", description="dark outlines on pale paper"),
    Style(name="night", description="moonlit blue with deep shadows"),
)
