"""Records with made-up numbers, as the tests of the report have them."""

from tests.report.conftest import made, write_run

__all__ = ["made", "write_run"]
