"""The ACL of docker_auth's own configuration file. Pure: takes what the YAML says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def acl_documents(config: object) -> list[dict[str, Any]]:
    """The `acl:` of a loaded `auth_config.yml` as documents `{seq, match, actions, comment?}`.

    The file has no `seq`: its order decides, so they are numbered from 1. What an entry says is
    judged by parse_acl.

    Raises:
        ValueError: there is no list of entries.
    """
    acl = config.get("acl") if isinstance(config, Mapping) else None
    if not isinstance(acl, list):
        raise ValueError("has no list `acl:`")
    return [
        {**(entry if isinstance(entry, Mapping) else {}), "seq": seq}
        for seq, entry in enumerate(acl, 1)
    ]
