"""A client of the registry HTTP API, byte-exact. Knows neither MongoDB nor Flask.

Source: OCI distribution-spec 1.1, and distribution's docs "HTTP API V2" and "Token Authentication".
"""

from app.registry.auth import Endpoint
from app.registry.client import RegistryClient, make_placeholder
from app.registry.copy import BlobCopier
from app.registry.errors import OF_ENDPOINT, RegistryError
from app.registry.folder import OciFolder
from app.registry.manifests import Manifest, parse_manifest

__all__ = [
    "OF_ENDPOINT",
    "BlobCopier",
    "Endpoint",
    "Manifest",
    "OciFolder",
    "RegistryClient",
    "RegistryError",
    "make_placeholder",
    "parse_manifest",
]
