"""Header fields that no client sends by accident."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient


@pytest.mark.parametrize("given", ["Basic \xff", "basic YTp\xe9", "Basic !", "Basic \xb2="])
@pytest.mark.parametrize(
    "path", ["/login", "/search/", "/api/v1/tags", "/nope", "/events", "/metrics", "/logout"]
)
def test_credentials_that_cannot_be_read_are_none(
    client: FlaskClient, path: str, given: str
) -> None:
    without = client.get(path)
    answer = client.get(path, headers={"Authorization": given})

    assert answer.status_code == without.status_code < 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
