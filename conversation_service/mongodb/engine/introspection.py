from django_mongodb_backend import introspection


class _Directions(dict[object, str]):
    def __missing__(self, kind: object) -> str:
        return str(kind).upper()


class DatabaseIntrospection(introspection.DatabaseIntrospection):
    """Reads collections that have text, hashed or 2d indexes.

    django-mongodb-backend knows ascending, descending and 2dsphere indexes. On other indexes its
    get_constraints() raises KeyError, which fails each migration that alters or removes a field.
    Delete this class when the backend's ORDER_DIR has every kind.
    """

    ORDER_DIR = _Directions(introspection.DatabaseIntrospection.ORDER_DIR)
