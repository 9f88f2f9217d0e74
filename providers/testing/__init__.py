"""What an adapter is tested with: the contract suite that all of them pass, clocks, pictures, and words for failures.

    from providers.testing import ProviderContract, Upstream

Part of the package, so that an adapter of somebody else's can be held to it; the gateway itself imports none of it.
docs/providers.md shows how.
"""

from __future__ import annotations

from providers.testing.clock import FakeClock, RealClock
from providers.testing.contract import ProviderContract
from providers.testing.upstream import Upstream

__all__ = ["FakeClock", "ProviderContract", "RealClock", "Upstream"]
