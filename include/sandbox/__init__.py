"""The sandbox: local stand-ins of the platforms, a believable shop, and the demo."""
