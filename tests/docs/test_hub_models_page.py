"""docs/models-from-the-hub.md has the table of known models as it is."""

from .hub_models import PAGE, with_table


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python -m tests.docs.hub_models"
