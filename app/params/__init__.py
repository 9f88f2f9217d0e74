"""The parameter engine: rows x request -> plan. Pure: no I/O in here, which is what makes the dry run honest."""
