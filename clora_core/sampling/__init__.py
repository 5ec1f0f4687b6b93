"""The sampler: attention maps, loss, masks and the passes of one batch through the UNet."""
