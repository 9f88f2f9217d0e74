"""The suite. What is imported from the package that it exports has asserts that tell, too."""

import pytest

pytest.register_assert_rewrite("providers.testing", "tests.providers.upstream")
