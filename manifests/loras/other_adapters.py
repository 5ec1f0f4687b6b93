"""Files that people take for LoRAs and that are something else, told by their tensors' names.

Each is refused by its own name, with what would work instead: "no key matches" helps nobody. The
first rule that fits is told, so what a file is comes before what it also carries.
"""

import re
from collections.abc import Iterable

from clora_core.recipe.lora.parts import tensor_name

_EXTRACT = "use it as the base model, or extract a LoRA from it with your trainer's tools"
_BY_PEFT = (
    "merge it into its base model with peft (merge_and_unload) and use the result as the base model"
)

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (
            r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner|model_ema)\.",
            f"is a full checkpoint and not a LoRA; {_EXTRACT}",
        ),
        (
            r"^(controlnet_(cond_embedding|down_blocks|mid_block)|control_model|input_hint_block)\."
            r"|lllite_",
            "is a ControlNet and not a LoRA; nothing here uses one, choose a LoRA",
        ),
        (
            r"^(image_proj|ip_adapter)\b|\.to_[kv]_ip\.",
            "is an IP-Adapter (it follows a picture) and not a LoRA; choose a LoRA",
        ),
        (r"^(adapter\.)?body\.\d+\.(block|resnets)", "is a T2I-Adapter and not a LoRA; choose one"),
        (r"motion_modules\.", "is an AnimateDiff motion module and not for still images"),
        (
            r"^(unet\.)?(conv_in|time_embedding\.linear_1|down_blocks\.0\.resnets\.0\.conv1)\.weight$",
            f"is a whole UNet and not a LoRA; {_EXTRACT}",
        ),
        (
            r"^(model\.)?(diffusion_model\.)?(double_blocks|single_blocks|joint_blocks"
            r"|transformer_blocks|single_transformer_blocks)\.\d+\.(?!.*lora).*\.(weight|bias)$",
            "is a whole diffusion transformer (FLUX, SD3 or the like) and not a LoRA; neither runs "
            "here, choose a LoRA of SD 1.x, SD 2.x or SDXL",
        ),
        (
            r"^(text_model\.embeddings\.|encoder\.conv_in\.|decoder\.conv_in\.|post_quant_conv\.)",
            "is a whole text encoder or VAE and not a LoRA; use it as part of a base model",
        ),
        (
            r"\.on_input$|ia3_",
            "is an IA3 (it scales activations), which is not read; merge it into its base model "
            "with the tool that it is of, LyCORIS (on_input) or peft (ia3_l), and use the result "
            "as the base model",
        ),
        (
            r"vera_lambda",
            "is a VeRA, whose factors peft draws anew from a seed and a file need not hold; "
            f"{_BY_PEFT}",
        ),
        (
            r"lora_embedding_[AB]",
            "also trains the words of a text encoder (lora_embedding), which is not read; "
            f"{_BY_PEFT}",
        ),
        (
            r"\.(modules_to_save|original_module)\.",
            f"also holds whole trained layers (modules_to_save), which are not read; {_BY_PEFT}",
        ),
        (
            r"[._]resblocks[._]\d+[._]",
            "names the layers of a text encoder as OpenCLIP does (resblocks), with queries, keys "
            "and values in one layer, and base models here have three; write a copy without the "
            "tensors that have resblocks in their names, as 'What is refused' in docs/loras.md "
            "shows, or use a version of it with the names of transformers "
            "(text_model.encoder.layers)",
        ),
        (
            r"\.(qweight|qzeros|absmax|quant_state|weight_format)\b",
            "is quantised, and floating-point numbers are read; use the version of it that is not "
            "(F16 or F32), which most pages offer beside it",
        ),
        (
            r"^(hypernet|optimizer|param_groups)",
            "is a hypernetwork or training state and not a LoRA; choose the exported LoRA",
        ),
    )
)


def other_kind(names: Iterable[str]) -> tuple[str, int] | None:
    """Return what a file with tensors of these names is instead of a plain LoRA.

    Returns:
        The end of a sentence that begins with the file, and how many names say so; None if no
        name tells of another kind.
    """
    listed = tuple(names)
    strangers = tuple(name for name in listed if tensor_name(name) is None)
    for number, (pattern, sentence) in enumerate(_RULES):
        # An adapter's layers may be named as those of a checkpoint.
        among = listed if number else strangers
        hits = sum(pattern.search(name) is not None for name in among)
        if hits:
            return sentence, hits
    return None
