"""Manifests: what the user asks for, read, checked and named by its content.

Reads rows (Parquet, CSV, JSONL), the LoRA catalog and LoRA file headers; reports every problem
at once; completes each row and names it by its key. Loads in a moment: only ``recipe`` of the core,
and neither torch nor Ray nor any model library.

    rows         parquet_child > guarded_parquet; parquet_rows, manifest_limits > readers;
                 row_schema, row_loras, regions, sampler_settings > row_rules > row_check > check;
                 row_store, row_table (rows in Arrow)
    LoRAs        catalog > lora_files > lora_file > safetensors_header, file_magic;
                 lora_format, other_adapters; lora_family, lora_scales; lora_fit
    LoRA report  lora_report > lora_parts, lora_fingerprint, gallery_hashes, trainer_notes >
                 catalog_entry
    base model   base_model, digests; model_layers (what LoRAs find a place in)
    grids        grid_spec, prompt_lines, grid_template > grid_expand (sweeps), grid_axes (catalogs)
                 > grid_rows
    places       place_names, store_address > s3_reader > locations (reading); globs, object_file,
                 file_cache (local copies), allowed_roots (services)
    text         text_rules, wording, problems, json_text, yaml_text > yaml_file

A row and a LoRA pass through the modules from left to right; each begins with its rule.
"""
