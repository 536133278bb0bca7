"""Agent on the provider's machines: devices, runtime drivers, reconciler."""
