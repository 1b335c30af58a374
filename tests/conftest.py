"""Before any module with properties is imported: which examples they are shown."""

from tests.support.properties import load_profile

load_profile()
