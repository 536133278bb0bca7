"""What reads a machine's GPUs: one module a library, all behind ``ports.DeviceProbe``."""
