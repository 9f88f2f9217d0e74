"""All models, loaded from YAML at start: `schema` says what a file may hold, `load` reads, `describe` shows."""
