"""The models' original implementations and optimum's exporter, run in an environment of their own. Never needed to build
with `export: direct`, and nothing here is imported before somebody asks for it."""
