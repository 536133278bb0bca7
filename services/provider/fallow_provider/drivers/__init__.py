"""Runtime drivers: what runs containers on this machine. `ports.RuntimeDriver` says what each promises."""
