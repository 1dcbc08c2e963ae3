"""The models' original implementations and optimum's exporter, run in an environment of their own. `export: direct`
never needs it, and nothing here is imported before somebody asks for it."""
