"""The shapes of the models: small enough for 25 MB and a laptop, in formats everyone loads.

The latents have eight channels, because four lose hues, and the UNet looks at the text at
16×16 and at 8×8; the 16×16 maps are what composition reads.
"""

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, ViTConfig, ViTModel

from emoji_world.bestiary import NOUNS
from emoji_world.captions import TRIGGERS, VOCABULARY
from emoji_world.tokenizer import MAX_POSITIONS, build_tokenizer

LATENT_CHANNELS = 8
TEXT_WIDTH = 96


def new_vae() -> Any:
    """Return an untrained autoencoder: 64×64 px to 8 channels of 16×16."""
    model: Any = AutoencoderKL
    return model(
        block_out_channels=(32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=64,
        scaling_factor=1.0,
    )


def new_unet() -> Any:
    """Return an untrained UNet over the latents, 5.6 million parameters."""
    model: Any = UNet2DConditionModel
    return model(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(80, 144),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(5, 9),
        norm_num_groups=16,
    )


def new_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of ``folder``, which is built on first use."""
    from transformers import CLIPTokenizer

    if (folder / "vocab.json").is_file():
        return CLIPTokenizer.from_pretrained(folder)
    return build_tokenizer(VOCABULARY + NOUNS, TRIGGERS, folder)


def new_text_encoder(tokenizer: Any) -> Any:
    """Return an untrained text encoder for the tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_POSITIONS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler() -> Any:
    """Return the noise schedule: v-prediction that ends in pure noise.

    Without a zero terminal signal-to-noise ratio, low frequencies, and with them the colour of
    a LoRA's subject, come from the starting noise instead of the prompt (arXiv 2305.08891).
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def new_vit() -> Any:
    """Return an untrained vision transformer for 64×64 px in patches of 8."""
    return ViTModel(
        ViTConfig(
            image_size=64,
            patch_size=8,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=4,
        ),
        add_pooling_layer=False,
    )
