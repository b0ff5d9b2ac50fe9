"""Faults of the SQLite backend: dying processes, full disks, damaged files, power cuts, forks.

Real files and real processes; what stands in a file is read by Python's own `sqlite3`, in another
process than the one that uses it or after that has closed it, because closing a file takes the
locks of the whole process with it.
"""
