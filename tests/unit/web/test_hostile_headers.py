"""Header fields that no client sends by accident."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient


@pytest.mark.parametrize("given", ["Basic \xff", "basic YTp\xe9", "Basic !", "Basic \xb2="])
@pytest.mark.parametrize(
    "path", ["/login", "/search/", "/api/v1/tags", "/nope", "/events", "/metrics", "/logout"]
)
def test_credentials_that_cannot_be_read_are_wrong_ones_and_no_error(
    client: FlaskClient, path: str, given: str
) -> None:
    without = client.get(path)
    answer = client.get(path, headers={"Authorization": given})

    is_asked_to_sign_in = path in ("/search/", "/api/v1/tags")
    assert answer.status_code == (401 if is_asked_to_sign_in else without.status_code) < 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", [".", "a..b", ".example", "a" * 64, f"{'a' * 64}.example"])
@pytest.mark.parametrize("path", ["/login", "/search", "/nope", "/api/", "/static/site.css"])
def test_a_host_that_is_no_name_is_refused_in_a_word(
    client: FlaskClient, path: str, host: str
) -> None:
    for answer in (
        client.get(path, headers={"Host": host}),
        client.post(path, headers={"Host": host}, json={}),
    ):
        assert (answer.status_code, answer.text) == (400, "Host: this is no name of a host.\n")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in answer.headers
