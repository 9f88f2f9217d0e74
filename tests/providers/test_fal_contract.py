"""FalProvider keeps the contract of all providers, against the sandbox over real HTTP."""

from __future__ import annotations

import pytest

from providers.testing.contract import ProviderContract
from tests.providers.upstream import DEAD, FalUpstream


class TestKeepsTheContract(ProviderContract):
    @pytest.fixture
    def upstream(self, fal: FalUpstream) -> FalUpstream:
        return fal

    def unreachable_ticket_data(self) -> dict[str, str]:
        return dict.fromkeys(("status_url", "response_url", "cancel_url"), f"{DEAD}/queue/a/b/requests/x/status")
