"""The machine: device, precision, ranks, folders, signals."""
