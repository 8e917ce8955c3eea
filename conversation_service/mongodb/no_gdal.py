"""Stands in for django.contrib.gis.gdal.libgdal, which searches for the GDAL library on import.

django-mongodb-backend imports it twice, and each search starts up to 60 processes (ldconfig, gcc
and ld): up to 1 s of processor time at each start. The service stores no geographic data.
"""

from typing import Never


def __getattr__(name: str) -> Never:
    """Raise the search's error if there is no GDAL, which django-mongodb-backend expects."""
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415

    raise ImproperlyConfigured("GeoDjango is not used.")
