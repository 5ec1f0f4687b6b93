"""peft's kinds of adapter, and which of their settings are applied; all others are refused by name.

A setting that changes what a layer does and is passed over would be a wrong picture, so a folder
is read only if all that it sets is applied here, or changes nothing once training is over.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, cast

from clora_core.recipe.lora.alpha_patterns import cost_problem
from clora_core.recipe.lora.kinds import Kind

Alpha = Literal["lora_alpha", "alpha"]


@dataclass(frozen=True, slots=True)
class Tuner:
    """One of peft's kinds of adapter.

    Attributes:
        kind: Of its layers' updates.
        alpha: What its settings call alpha; None where it has no strength.
        flags: Settings that are applied and true or false. A LoRA's may be missing, which older
            versions of peft had not; a rotation's are there, as all decide what it is.
        uses: Settings called ``use_...`` that are applied, or of no effect after training.
    """

    kind: Kind
    alpha: Alpha | None
    flags: tuple[str, ...] = ()
    uses: frozenset[str] = frozenset()


TUNERS: Mapping[str, Tuner] = {
    "LORA": Tuner(
        "lora",
        "lora_alpha",
        ("use_rslora", "use_dora", "lora_bias"),
        frozenset({"use_rslora", "use_dora"}),
    ),
    "LOHA": Tuner("loha", "alpha", uses=frozenset({"use_effective_conv2d"})),
    "LOKR": Tuner("lokr", "alpha", uses=frozenset({"use_effective_conv2d"})),
    "OFT": Tuner(
        "oft",
        None,
        ("use_cayley_neumann", "coft", "block_share"),
        frozenset({"use_cayley_neumann"}),
    ),
    "BOFT": Tuner("boft", None),
}
"""By ``peft_type``."""

_RETRAIN = "train it again as a plain LoRA"
_AGAIN = "save the LoRA with peft again"
_NOT_APPLIED: Mapping[str, str] = {
    "use_qalora": "QALoRA pools the inputs",
    "use_bdlora": "BD-LoRA has factors in blocks",
    "modules_to_save": "whole trained layers are not read",
    "trainable_token_indices": "trained words are not read",
    "target_parameters": "LoRAs of single parameters are not read",
    "layer_replication": "it changes the base model's layers",
    "alora_invocation_tokens": "it acts on some tokens alone",
    "arrow_config": "it chooses among several LoRAs",
    "kasa_config": "KaSA changes the base model's weights",
    "monteclora_config": "MonteCLoRA draws its factors at random",
}
MAX_TERMS = 100
"""Of the series of a rotation; peft's default is 5."""

_CHANGES_BASE = re.compile(r"pissa|corda|olora|loftq|lora_ga", re.IGNORECASE)


def refusals(given: Mapping[str, Any]) -> Sequence[str]:
    """Return the ends of sentences on what is wrong with peft's settings, the gravest first."""
    kind = given.get("peft_type")
    tuner = TUNERS.get(kind) if isinstance(kind, str) else None
    if tuner is None:
        return [
            f"has the peft_type {_shown(kind)}, and {', '.join(TUNERS)} are read; {_RETRAIN}, or "
            "name the folder of one"
        ]
    found = [
        f"sets {name} to {_shown(given[name])}, and {reason}; {_RETRAIN}"
        for name, reason in _NOT_APPLIED.items()
        if given.get(name)
    ]
    found += [
        f"sets {name[:100]} to {_shown(value)}, which is not known here; {_RETRAIN}"
        for name, value in given.items()
        if name.startswith("use_")
        and name not in tuner.uses
        and name not in _NOT_APPLIED
        and value not in (None, False)
    ]
    if given.get("bias", "none") != "none":
        found.append(
            f"sets bias to {_shown(given['bias'])}, and whole trained biases are not read; "
            f"{_RETRAIN} with bias 'none'"
        )
    start = given.get("init_lora_weights", True)
    if isinstance(start, str) and _CHANGES_BASE.match(start):
        found.append(
            f"sets init_lora_weights to {_shown(start)}, which changes the base model's own "
            "weights; save it with peft's path_initial_model_for_weight_conversion, which makes a "
            "plain LoRA of it"
        )
    found += [] if tuner.alpha is None else _strength_refusals(given, tuner.alpha)
    return [*found, *_flag_refusals(given, tuner)]


def _strength_refusals(given: Mapping[str, Any], alpha: Alpha) -> Sequence[str]:
    found: list[str] = []
    if not _is_rank(given.get("r")):
        found.append(f"should have a whole number above 0 as r, got {_value(given, 'r')}; {_AGAIN}")
    if not _is_number(given.get(alpha)):
        found.append(f"should have a number as {alpha}, got {_value(given, alpha)}; {_AGAIN}")
    for name, is_right, kind in (
        ("alpha_pattern", _is_number, "alphas"),
        ("rank_pattern", _is_rank, "ranks"),
    ):
        patterns = given.get(name) or {}
        if not isinstance(patterns, dict):
            found.append(f"should have an object as {name}, got {_value(given, name)}; {_AGAIN}")
            continue
        by_pattern = cast("dict[str, Any]", patterns)
        wrong = [key for key, value in by_pattern.items() if not is_right(value)]
        if wrong:
            found.append(
                f"should have {kind} in {name}, got {_shown(by_pattern[wrong[0]])} for "
                f"{wrong[0][:100]!r}; {_AGAIN}"
            )
        cost = cost_problem(by_pattern, said=f"its {name} sets {kind}")
        if cost is not None:
            found.append(f"cannot be used: {cost}")
    return found


def _flag_refusals(given: Mapping[str, Any], tuner: Tuner) -> Sequence[str]:
    found = [
        f"should have true or false as {name}, got {_value(given, name)}; {_AGAIN}"
        for name in tuner.flags
        if not isinstance(given.get(name, False if tuner.kind == "lora" else None), bool)
    ]
    if tuner.kind != "oft":
        return found
    terms, limit = given.get("num_cayley_neumann_terms"), given.get("eps")
    if given.get("use_cayley_neumann") is True and not (_is_rank(terms) and terms <= MAX_TERMS):
        found.append(
            f"should have a whole number from 1 to {MAX_TERMS} as num_cayley_neumann_terms, got "
            f"{_value(given, 'num_cayley_neumann_terms')}; {_AGAIN}"
        )
    if given.get("coft") is True and not (_is_number(limit) and limit >= 0):
        found.append(f"should have a number from 0 as eps, got {_value(given, 'eps')}; {_AGAIN}")
    return found


def _is_rank(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**31


def _is_number(value: object) -> TypeGuard[float]:
    try:
        return type(value) in (int, float) and math.isfinite(float(cast("float", value)))
    except OverflowError:
        return False


def _value(given: Mapping[str, Any], name: str) -> str:
    return _shown(given[name]) if name in given else "none"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
