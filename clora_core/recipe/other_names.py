"""What other tools call the things that our fields are: the one list of such names.

People come from A1111 and Forge, ComfyUI, diffusers, sd-scripts (kohya), Civitai and from tables of
their own, and write what they have always written. A name stands here under every field of ours
that it may mean; a section (a manifest, a LoRA of a row, the resources of a job, ...) takes those
of its own fields alone, so ``name`` is ``lora`` in a LoRA of a row and nothing in a manifest.
"""

from collections.abc import Mapping
from types import MappingProxyType

OTHER_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # A row.
        "prompt": (
            "text", "caption", "description", "positive", "positive_prompt", "prompt_text",
            "text_prompt", "user_prompt", "p",
        ),
        "negative_prompt": (
            "negative", "neg", "neg_prompt", "n_prompt", "negative_text", "uc", "unconditional",
            "anti_prompt",
        ),
        "seed": ("noise_seed", "random_seed", "rng_seed", "manual_seed", "generator_seed"),
        "row_id": ("id", "row_name", "row_key"),
        "width": ("w", "width_px", "image_width", "img_width", "size", "resolution"),
        "height": ("h", "height_px", "image_height", "img_height", "size", "resolution"),
        "base_model": (
            "model", "model_id", "model_name", "model_path", "base", "checkpoint", "ckpt",
            "ckpt_name", "checkpoint_name", "sd_model", "sd_model_checkpoint",
            "pretrained_model_name_or_path",
        ),
        "base_models": ("models", "checkpoints", "ckpts"),
        "method": ("merge_method", "composition_method", "lora_method", "algorithm", "combine"),
        "methods": ("merge_methods", "composition_methods", "algorithms"),
        "sampler": ("sampler_settings", "sampler_config", "sampling", "sampling_settings"),
        "samplers": ("sampler_grid", "settings_grid"),
        # The LoRAs of a row, a sweep or a job.
        "loras": (
            "lora", "lora_name", "lora_names", "lora_list", "adapter", "adapters", "adapter_name",
            "adapter_names", "networks", "network_weights", "lora_catalog", "lora_file",
            "lora_dir", "lora_folder",
        ),
        "lora": ("name", "id", "lora_name", "adapter", "adapter_name", "file", "path"),
        "weight": (
            "strength", "scale", "alpha", "multiplier", "factor", "lora_weight", "lora_weights",
            "lora_scale", "lora_scales", "lora_strength", "lora_strengths", "adapter_weight",
            "adapter_weights", "strength_model", "model_strength", "network_mul",
        ),
        "subject": (
            "class", "class_token", "class_word", "class_name", "noun", "object", "concept",
        ),
        "trigger": (
            "token", "trigger_word", "trigger_words", "trained_words", "activation_text",
            "instance_token", "instance_prompt", "placeholder_token", "modifier_token", "keyword",
        ),
        "region": ("area", "location", "position", "bbox", "box", "mask"),
        "box": ("bbox", "bounding_box", "rect", "rectangle", "xyxy"),
        "mask": (
            "mask_file", "mask_path", "mask_uri", "mask_image", "file", "path", "image", "uri",
        ),
        # A LoRA of a catalog.
        "name": ("id", "lora", "lora_name", "adapter_name", "title"),
        "uri": (
            "file", "path", "filename", "file_name", "file_path", "url", "href", "location",
            "model", "model_path", "lora_file", "lora_path", "safetensors", "download_url",
        ),
        "kind": ("type", "lora_type"),
        "license": ("license_name",),
        "source_url": ("model_url", "civitai_url"),
        "sha256": ("hash", "sha", "checksum", "digest", "file_sha256"),
        # A job, a sweep, a catalog spec.
        "manifest": (
            "input", "inputs", "input_file", "csv", "jsonl", "data", "dataset", "rows", "prompts",
            "prompt_file", "file", "path",
        ),
        "output": (
            "out", "outdir", "out_dir", "output_dir", "output_path", "output_folder", "save_dir",
            "save_path", "dest", "destination", "results",
        ),
        "scoring": ("score", "scores", "evaluation", "eval"),
        "resources": ("compute", "hardware", "cluster"),
        "failure_budget": ("max_failures", "failures", "max_errors", "errors"),
        "fused_at": ("fused", "fused_dir", "fused_path"),
        "references": ("num_references", "n_references", "refs", "num_refs", "reference_images"),
        "references_at": ("references_dir", "references_path", "reference_dir", "refs_dir"),
        "actors": (
            "workers", "num_workers", "num_actors", "processes", "replicas", "concurrency", "gpus",
            "num_gpus", "n_gpus",
        ),
        "max_actors": ("max_workers", "actors_max", "max_replicas"),
        "gpus_per_actor": ("gpus", "num_gpus", "n_gpus", "gpus_per_worker", "gpu"),
        "cpus_per_actor": ("cpus", "num_cpus", "n_cpus", "cores", "cpus_per_worker", "cpu"),
        "score_actors": ("score_workers", "num_score_actors"),
        "rows_per_unit": ("batch_size", "unit_size", "chunk_size", "rows_per_batch"),
        "max_lanes": ("batch_size", "lanes"),
        "lora_cache_gib": ("lora_cache", "lora_cache_gb", "cache_gib", "cache_gb"),
        "lora_device_gib": ("lora_device_gb", "device_cache_gib", "gpu_cache_gib"),
        "dtype": ("precision", "torch_dtype", "weight_dtype", "mixed_precision", "data_type"),
        "attempts": ("retries", "max_retries", "num_retries", "max_attempts", "tries"),
        "store_retry_s": ("store_retry", "retry_s", "retry_seconds"),
        "share": ("fraction", "ratio", "rate", "max_share"),
        "min_rows": ("minimum", "min_failures"),
        "compositions": ("combos", "combinations", "lora_sets", "sets", "concepts"),
        "pairs_of": ("pairs",),
        "triples_of": ("triples", "triplets"),
        "prompts": ("templates", "template", "captions", "texts"),
        "prompt_file": ("prompts_file", "prompts_from_file", "file"),
        "backgrounds": ("places", "settings"),
        "words": ("wildcard", "wildcards", "word_lists"),
        "seeds": ("noise_seed", "random_seed", "random_seeds", "num_seeds"),
        "composlora": ("compos_lora",),
        "customconcept101": ("custom_concept_101",),
        "items": ("products", "articles"),
        "scenes": ("shots", "settings"),
        "looks": ("styles", "variants"),
        "keep": ("keep_editions", "history"),
        "may_miss": ("may_be_missing", "max_missing", "allow_missing"),
        "item": ("name", "id", "sku", "product", "title", "article"),
        "scene": ("name", "id", "title", "shot"),
        # Settings of the sampler.
        "scheduler": (
            "sampler", "sampler_name", "scheduler_name", "scheduler_type", "sampling_method",
            "sample_method", "solver",
        ),
        "num_steps": (
            "steps", "num_inference_steps", "inference_steps", "sampling_steps", "sample_steps",
            "num_sampling_steps", "n_steps", "step_count", "ddim_steps", "denoising_steps",
        ),
        "guidance_scale": (
            "cfg", "cfg_scale", "guidance", "scale", "guidance_strength",
            "classifier_free_guidance", "unconditional_guidance_scale",
        ),
        "clip_skip": ("clip_stop_at_last_layers", "stop_at_clip_layer", "clip_layer"),
        "prompt_syntax": ("syntax", "emphasis", "prompt_parser", "emphasis_mode"),
        "long_prompts": ("truncate", "truncation", "chunking", "long_prompt"),
        "switch_every": ("switch_step", "switch_steps", "switch_interval"),
    }
)  # fmt: skip
"""By our field: what it is called elsewhere, in any spelling of case and separators."""
