"""A few functions of libpq, so that the measurements need no Python package."""

import ctypes
import ctypes.util

_pq = ctypes.CDLL(ctypes.util.find_library("pq") or "libpq.so.5")
for _name in ("PQconnectdb", "PQexec"):
    getattr(_pq, _name).restype = ctypes.c_void_p
for _name in ("PQerrorMessage", "PQresultErrorMessage", "PQresultErrorField", "PQgetvalue"):
    getattr(_pq, _name).restype = ctypes.c_char_p


class Failure(Exception):
    def __init__(self, message, sqlstate=""):
        super().__init__(message)
        self.sqlstate = sqlstate


class Connection:
    """One connection. Blocking calls release Python's lock, so threads with a connection each run side by side."""

    def __init__(self, url):
        self._c = ctypes.c_void_p(_pq.PQconnectdb(url.encode()))
        if _pq.PQstatus(self._c) != 0:
            failure = Failure(_pq.PQerrorMessage(self._c).decode().strip())
            self.close()
            raise failure
        self.run("SET client_min_messages = warning")

    def run(self, sql):
        """Executes it; rows as lists of text, None for NULL."""
        result = ctypes.c_void_p(_pq.PQexec(self._c, sql.encode()))
        try:
            if _pq.PQresultStatus(result) not in (1, 2):
                raise Failure((_pq.PQresultErrorMessage(result) or _pq.PQerrorMessage(self._c)).decode().strip(),
                              (_pq.PQresultErrorField(result, ord("C")) or b"").decode())
            columns = range(_pq.PQnfields(result))
            return [[None if _pq.PQgetisnull(result, r, c) else _pq.PQgetvalue(result, r, c).decode() for c in columns]
                    for r in range(_pq.PQntuples(result))]
        finally:
            _pq.PQclear(result)

    def value(self, sql):
        return self.run(sql)[0][0]

    def close(self):
        _pq.PQfinish(self._c)
