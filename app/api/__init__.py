"""HTTP: what comes in becomes an EditRequest, what happened becomes an answer. No decisions in between."""
