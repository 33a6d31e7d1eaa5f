"""The layers of the network: flat keyword arguments, no configuration, no input or output."""
