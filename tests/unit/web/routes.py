"""The routes of the URL map, as paths that can be asked for."""

from __future__ import annotations

import re

from flask import Flask

from app.settings import Migration, Source, Target

# Of a plan that find_routes names.
MIGRATION = Migration(
    name="none",
    source=Source(url="https://old.invalid"),
    target=Target(url="https://new.invalid"),
)


def find_routes(app: Flask, method: str) -> list[tuple[str, str]]:
    """Endpoint and path of each route, with one path for each value of an `any` converter."""
    routes = []
    for rule in app.url_map.iter_rules():
        if method not in (rule.methods or ()):
            continue
        path = str(rule)
        values = [""]
        if found := re.search(r"<any\((.*?)\):\w+>", path):
            values = [value.strip(" '\"") for value in found[1].split(",")]
        for value in values:
            filled = re.sub(r"<any\(.*?\):\w+>", value, path)
            filled = re.sub(r"<path:filename>", "site.css", filled)
            routes.append((rule.endpoint, re.sub(r"<.*?>", "none", filled)))
    return sorted(set(routes))
