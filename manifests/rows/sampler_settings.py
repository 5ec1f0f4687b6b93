"""Sampler settings as people give them, made complete or refused a mistake at a time."""

from collections.abc import Mapping
from itertools import islice

from pydantic import ValidationError

from clora_core.recipe.config import SamplerConfig
from manifests.text.wording import MAX_FINDINGS, SettingsError, did_you_mean, sentences


def resolve_sampler(
    settings: Mapping[str, object], *, base: SamplerConfig | None = None
) -> SamplerConfig:
    """Return the settings that ``settings`` make of ``base``; see ``SamplerConfig.resolve``.

    Raises:
        SettingsError: With one finding per mistake; an unknown name comes with the nearest one.
    """
    known = ("preset", *SamplerConfig.model_fields)
    unknown = islice((str(name) for name in settings if name not in known), MAX_FINDINGS)
    findings = [(name, f"is not a known setting; {did_you_mean(name, known)}") for name in unknown]
    resolved = None
    try:
        resolved = SamplerConfig.resolve(
            {name: value for name, value in settings.items() if name in known}, base=base
        )
    except ValidationError as error:
        findings.extend(sentences(error, known=known))
    except (ValueError, TypeError) as error:
        findings.append(("preset", str(error)))
    if findings or resolved is None:
        raise SettingsError(findings)
    return resolved
