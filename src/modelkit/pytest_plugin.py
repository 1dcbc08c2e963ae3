"""pytest --modelkit."""
