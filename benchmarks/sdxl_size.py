"""The UNet of Stable Diffusion XL's exact shape, for counting; weights are random."""

from diffusers import UNet2DConditionModel

POOLED_WIDTH = 1280
TEXT_WIDTH = 2048
LATENT_SIDE = 128


def unet() -> UNet2DConditionModel:
    """Return the UNet of Stable Diffusion XL, 2567.5 M parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * 256,
    )
