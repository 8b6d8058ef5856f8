"""Runs clickhouse-local out of libchdb in this process: `chdb_server.py LIBRARY ARGV…`."""

import ctypes
import signal
import sys


def main() -> int:
    library, arguments = sys.argv[1], [argument.encode() for argument in sys.argv[2:]]
    # Python would keep SIGINT for itself and act on it only after the call below, which does not return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    function = ctypes.CDLL(library).chdb_query_cmdline
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    return function(len(arguments), argv)


if __name__ == "__main__":
    sys.exit(main())
