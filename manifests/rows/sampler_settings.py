"""Sampler settings as people give them, made complete or refused a mistake at a time."""

from collections.abc import Mapping

from pydantic import ValidationError

from clora_core.recipe.config import SamplerConfig
from manifests.text.given_names import named_values
from manifests.text.sections import Section
from manifests.text.wording import SettingsError, sentences

SAMPLER_SECTION = Section(names=("preset", *SamplerConfig.model_fields), is_apart=True)


def resolve_sampler(
    settings: Mapping[str, object], *, base: SamplerConfig | None = None
) -> SamplerConfig:
    """Return the settings that ``settings`` make of ``base``; see ``SamplerConfig.resolve``.

    Raises:
        SettingsError: With one finding per mistake; an unknown name comes with the one that was
            probably meant.
    """
    named = named_values({str(name): value for name, value in settings.items()}, SAMPLER_SECTION)
    findings = named.findings
    resolved = None
    try:
        resolved = SamplerConfig.resolve(named.values, base=base)
    except ValidationError as error:
        findings += sentences(error, unless=named.speak_of)
    except (ValueError, TypeError) as error:
        findings.append(("preset", str(error)))
    if findings or resolved is None:
        raise SettingsError(findings)
    return resolved
