"""modelkit: write a manifest, run pytest, ship a model you can trust."""
