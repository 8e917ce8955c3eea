from django_mongodb_backend import introspection


class _Directions(dict[object, str]):
    def __missing__(self, kind: object) -> str:
        return str(kind).upper()


class DatabaseIntrospection(introspection.DatabaseIntrospection):
    """Reads collections that have text, hashed or 2d indexes.

    Upstream knows ascending, descending and 2dsphere: on any other index get_constraints()
    raises KeyError, and with it each migration that alters or removes a field there. Delete
    when upstream's ORDER_DIR answers for every kind.
    """

    ORDER_DIR = _Directions(introspection.DatabaseIntrospection.ORDER_DIR)
