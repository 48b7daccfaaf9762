"""SecantusDB as a child process: what `mongodb.uri: embedded` runs.

A separate program under GPL-2.0, only ever executed, never imported. To everything else it is one
more MongoDB URI. One thread owns it from launch to death, because Linux takes the end of the
*thread* that forked for the end of the parent (PR_SET_PDEATHSIG, prctl(2)).

Files in `data_dir`: `embedded/` the data; `embedded.lock` held while a server or its database
lives; `embedded.password`; `embedded.uri` while it runs; `embedded.log` what the program printed;
`embedded.toml` its own configuration, empty unless edited; `embedded.unfinished` until the first
start is through.

The program can create a user only while it asks nobody for a password. For that time, a fraction
of a second of the first start, other users of this machine can reach it: so it is killed as soon
as its user exists, and any other user found in it afterwards is dropped.
"""

from app.embedded.database import EmbeddedDatabase
from app.embedded.running import has_database, recorded_uri, running_or_started, running_uri
from app.embedded.space import free_bytes, refuse_without_space

__all__ = [
    "EmbeddedDatabase",
    "free_bytes",
    "has_database",
    "recorded_uri",
    "refuse_without_space",
    "running_or_started",
    "running_uri",
]
