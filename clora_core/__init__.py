"""Composition of several LoRAs in one image: rows in, images and diagnostics out.

The package knows nothing of Ray, Parquet or storage. ``recipe`` holds plain values and rules that
load without torch; ``composer`` is what an actor calls.
"""
