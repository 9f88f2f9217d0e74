"""Adapters to image providers. None of them imports `app`; the contract is `providers.base`."""
