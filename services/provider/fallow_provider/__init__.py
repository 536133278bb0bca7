"""Agent on the provider's machines: devices, runtime drivers, reconciler."""

from importlib.metadata import version

__version__ = version("fallow-provider")
