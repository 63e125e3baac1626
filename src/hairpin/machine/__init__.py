"""The device and its number formats, threads, memory and compiler, as this machine has them."""
