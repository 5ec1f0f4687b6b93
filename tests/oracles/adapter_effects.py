"""What is read of an adapter's file, against the effect that its trainer's own code has."""

import torch
from adapters.case import Components, Effect, Expected, Place
from oracles.every_kind import own_output
from torch import Tensor, nn

from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors

NEAR = 1e-5
"""Relative: products of a file's factors are made in single precision."""

LANES = (1.0, 0.0, 0.5)
"""Weights of the lanes of one pass; at a half the layer changes by half of the difference."""


def assert_effects(lora: LoraFactors, expected: Expected, components: Components) -> None:
    """Hold each layer's difference, and what the bank makes of it, to the expected effect.

    Args:
        lora: As it was read.
        expected: Of its file.
        components: Of the base model, in float64.

    Raises:
        AssertionError: A layer is missing or too many, or does something else.
    """
    read = {(component, name) for component, own in lora.components.items() for name in own}
    assert read == set(expected.effects)
    for (component, name), effect in expected.effects.items():
        module = components[component].get_submodule(name)
        if effect.weight is not None and effect.weight.ndim > 1:
            made = lora.of(component)[name].applied(module, torch.float64).matrix()
            assert made is not None, name
            _assert_near(made.reshape(effect.weight.shape), effect.weight, (component, name))
    for component in lora.components:
        bank = LoraBank(components[component], [lora], component)
        for place, effect in expected.effects.items():
            if place[0] == component:
                _assert_lanes(components[component].get_submodule(place[1]), bank, effect, place)


def _assert_lanes(module: nn.Module, bank: LoraBank, effect: Effect, place: Place) -> None:
    """Hold a layer's output to that of its effective weights, lane by lane.

    An input of nothing shows the bias, which is small beside the rest.
    """
    noise = torch.randn(_input_shape(module), generator=torch.Generator().manual_seed(1))
    for x in (noise.double(), torch.zeros_like(noise).double()):
        base, whole = module(x).detach(), own_output(module, effect, x).detach()
        with bank.attached():
            bank.use(torch.tensor(LANES, dtype=torch.float64)[:, None])
            found = module(x).detach()
        for lane, weight in enumerate(LANES):
            change = weight * (whole[lane] - base[lane])
            if bool(change.any()):
                _assert_near(found[lane] - base[lane], change, place)
            else:
                assert torch.equal(found[lane], base[lane]), place


def _input_shape(module: nn.Module) -> tuple[int, ...]:
    if isinstance(module, nn.Conv2d):
        return len(LANES), module.in_channels, 4, 4
    if isinstance(module, nn.GroupNorm):
        return len(LANES), module.num_channels, 2, 2
    return len(LANES), 5, module.weight.shape[-1]


def _assert_near(found: Tensor, wanted: Tensor, place: Place) -> None:
    error = float((found - wanted).norm() / wanted.norm())
    assert error < NEAR, (place, error)
