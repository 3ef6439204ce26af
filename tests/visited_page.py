"""A page of ours in a real browser, and what may not happen there."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Visit:
    """A page opened from its file, offline; keeps everything that should not have happened."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(
            **{"offline": True, "viewport": {"width": 1200, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):  # the data are unpacked before the page comes alive
            self.page.locator("#theme").wait_for()

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def choose(self, name: str, value: str) -> None:
        self.page.select_option(f"select[name={name}]", value)

    def rows(self, table: str) -> list[list[str]]:
        """Returns the cells of a table's visible rows, its section lines left out."""
        return self.page.eval_on_selector_all(  # type: ignore[no-any-return]
            f"{table} tbody tr:not(.section)",
            "rows => rows.filter(r => r.offsetParent).map(r => [...r.cells].map(c => c.textContent.trim()))",
        )

    def close(self, path: Path) -> None:
        """Closes it; nothing may have gone wrong, and only the file itself may have been asked for."""
        assert self.wrong == []
        assert {u for u in self.requests if not u.startswith("data:")} == {path.as_uri()}
        self.context.close()
