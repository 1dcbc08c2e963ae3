"""Weights -> graph, without torch. One file per `model_type` of config.json: `Options` and `PARTS`."""
