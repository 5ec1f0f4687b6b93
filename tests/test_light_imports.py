"""What must load on machines without torch or Ray, and in a moment."""

import pkgutil
import subprocess
import sys

import pytest

import clora_core.recipe
import manifests

HEAVY = ("torch", "diffusers", "transformers", "peft", "ray")


@pytest.mark.parametrize("package", [clora_core.recipe, manifests], ids=lambda p: p.__name__)
def test_no_module_of_the_package_loads_a_model_library_or_ray(package):
    names = [name for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    assert len(names) > 5
    code = f"import sys, {', '.join(names)}\n"
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr
