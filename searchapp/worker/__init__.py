"""The worker: encodes what is asked for from SQL, and keeps sources in step. Several may run, on one host or many."""

from searchapp.worker.worker import Worker

__all__ = ["Worker"]
