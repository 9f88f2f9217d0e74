"""Pictures and their bytes: read, checked, cut, turned, written. All of it blocks, but for `blob` and `pool`."""
