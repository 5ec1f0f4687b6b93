"""Base models in diffusers' format: the only place that knows diffusers and transformers."""
