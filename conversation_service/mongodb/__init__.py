import sys

from conversation_service.mongodb import no_gdal

# Before the first import of django_mongodb_backend.
sys.modules["django.contrib.gis.gdal.libgdal"] = no_gdal
