"""Pictures and their bytes: read, checked, cut, turned, written. All blocks, but for `blob`, `pool` and `workers`."""
