"""What `rns serve` names as gunicorn's configuration file, wherever the package is installed."""

from app.server import configure

configure(globals())
