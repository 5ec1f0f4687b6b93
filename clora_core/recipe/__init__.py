"""What an image is made from, as values: rows, LoRAs, settings, methods, and the key of a row.

Everything here loads without torch, so that rows are checked and planned on machines without it.
"""
