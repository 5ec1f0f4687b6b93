"""What several tests of sessions share."""

from fake_ray import base, fake

__all__ = ["base", "fake"]
