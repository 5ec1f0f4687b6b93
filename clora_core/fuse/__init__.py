"""Fused adapters: several concept LoRAs made into one, by the recipes of published methods."""
