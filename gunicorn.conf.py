"""Read by gunicorn when it is started in this directory; everything stands in app/server."""

from app.server import configure

configure(globals())
