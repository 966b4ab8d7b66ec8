"""What every protection and every attack owes: suites that plugins run in their own tests.

::

    from scotoma.testing import check_attack, check_protection

    def test_my_scheme_keeps_its_word():
        check_protection(open_protection(EncryptSettings("my-scheme", block=4)))

Each names every violation at once, in one :class:`ConformanceError`.
"""

from scotoma.testing.attacks import check_attack
from scotoma.testing.findings import ConformanceError
from scotoma.testing.protections import check_protection

__all__ = ["ConformanceError", "check_attack", "check_protection"]
