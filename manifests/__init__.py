"""Manifests: what the user asks for, read, checked and named by its content.

Reads rows (Parquet, CSV, JSONL), the LoRA catalog and LoRA file headers; reports every problem
at once; completes each row and names it by its key. Loads in a moment: only ``recipe`` of the core,
and neither torch nor Ray nor any model library.

    text      rules for values, sentences for mistakes, JSON and YAML
    places    paths and URIs, what a service may read, local copies
    tables    files of rows, read under limits
    weights   safetensors headers, digests, what a base model says of itself
    loras     LoRA files and the catalog that names them
    rows      one row as written, checked, and in Arrow
    grid      rows from axes: sweeps and product catalogs

Each imports from those above it.
"""
