"""Adapter files as each trainer writes them, with the weights that they mean by the trainers' code.

One case is a trainer, a kind of adapter, a spelling of layer names and a family of base models.
``cases`` lists them, ``write`` writes one with its exact effect, ``many`` writes a thousand small
ones for a fuzz, and ``table`` says of each whether it is read.
"""
