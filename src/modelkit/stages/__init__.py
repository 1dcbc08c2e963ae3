"""The four steps of a build, each a pure function from inputs to a folder."""
