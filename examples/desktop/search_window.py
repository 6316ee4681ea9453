"""A window that searches a folder by meaning while one types, in the Tk of Python's standard library.

    python examples/desktop/search_window.py [FOLDER]

Everything that takes time is in the threads of folder_search.py. This file only draws: every EVENT_MILLISECONDS it
takes what they have to say, and a question goes to them once nobody has typed for TYPING_MILLISECONDS.
"""

import argparse
import queue
import threading
import tkinter as tk
from pathlib import Path
from tkinter import filedialog, messagebox, ttk
from typing import Any

from folder_search import (
    Answer,
    Current,
    Event,
    FolderSearch,
    Problem,
    Progress,
    data_folder,
    index_of,
    open_file,
    remember_folder,
    remembered_folder,
    shown,
)
from window_style import ACCENT, ALARM, FAINT, INK, SHADE, know_the_resolution, scale_to_screen, style_of

from gte_sdk.passages.searching import Found
from gte_sdk.passages.splitting import Passage

EVENT_MILLISECONDS = 40
TYPING_MILLISECONDS = 150
CLOSE_SECONDS = 5.0

WELCOME = ("Choose the folder to search", "“Folder …” is at the top right.")
ASK = ("Ask in your own words", "For instance “how do I get my money back”.\n↑ and ↓ choose a passage, Enter opens it.")
READING = ("Reading the folder …", "What is read so far can be found already.")
NOTHING = ("Nothing found", "No passage is about this. Ask in other words, or look at what was left out, below.")
EMPTY = (
    "There is no text in this folder",
    "Put files in, or choose another folder. What was left out is listed below.",
)
LISTED = 25


def main() -> None:
    parser = argparse.ArgumentParser(description="Search a folder by meaning.")
    parser.add_argument("folder", type=Path, nargs="?", help="default: the folder of the last time")
    folder: Path | None = parser.parse_args().folder
    know_the_resolution()
    root = tk.Tk(className="folder_search")
    window = SearchWindow(root, data_folder())
    if start := folder.absolute() if folder else remembered_folder(window.data):
        window.show_folder(start)
    root.mainloop()


class SearchWindow:
    """The window's widgets, and the search that they show."""

    def __init__(self, root: tk.Tk, data: Path) -> None:
        self.root = root
        self.data = data
        self._search: FolderSearch | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._hits: list[Found] = []
        self._current: Current | None = None
        self._typing = ""
        self._scale = scale_to_screen(root)
        self._fonts = style_of(root, self._scale)
        self._lay_out()
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.after(EVENT_MILLISECONDS, self._take_events)

    def show_folder(self, folder: Path) -> None:
        if self._search:
            self._search.close()
        self._events = queue.SimpleQueue()  # what the search before still says goes to the queue before
        self._search = FolderSearch(folder, index_of(folder, self.data), self._events.put)
        self._folder_label["text"] = shown(folder)
        self._current = None
        self._say("Looking at the files …")
        self._show_hits([])
        self._show_state(*READING)
        try:
            remember_folder(folder, self.data)
        except OSError as error:
            self._events.put(Problem(str(error)))
        self._ask()

    def close(self) -> None:
        self.root.withdraw()
        if self._search:
            self._search.close(CLOSE_SECONDS)
        self.root.destroy()

    # --- what the user does

    def _choose_folder(self) -> None:
        if chosen := filedialog.askdirectory(parent=self.root, title="Folder to search", mustexist=True):
            self.show_folder(Path(chosen).absolute())

    def _move(self, rows: int) -> str:
        """Chooses another passage; the cursor stays in the question."""
        if self._hits:
            selected = self._results.selection()
            row = min(max(0, int(selected[0]) + rows if selected else 0), len(self._hits) - 1)
            self._results.selection_set(str(row))
            self._results.see(str(row))
        return "break"

    def _typed(self, *_: object) -> None:
        if self._typing:
            self.root.after_cancel(self._typing)
        self._typing = self.root.after(TYPING_MILLISECONDS, self._ask)

    def _ask(self) -> None:
        self._typing = ""
        question = self._question.get().strip()
        if not question or self._search is None:
            self._show_hits([])
            self._show_state(*self._state_without_question())
        else:
            self._search.ask(question)

    def _state_without_question(self) -> tuple[str, str]:
        if self._search is None:
            return WELCOME
        if self._current is None:
            return READING
        return ASK if self._current.passages else EMPTY

    def _select(self, _: object) -> None:
        selected = self._results.selection()
        passage = self._hits[int(selected[0])].passage if selected else None
        self._preview["state"] = "normal"
        self._preview.delete("1.0", "end")
        if passage:
            self._preview.insert("end", f"{self._short(passage.path)}, line {passage.line}\n", "place")
            self._preview.insert("end", f"{passage.context}\n" if passage.context else "", "context")
            self._preview.insert("end", f"\n{passage.text}")
        self._preview["state"] = "disabled"

    def _open_selected(self, _: object) -> None:
        for row in self._results.selection():
            passage, events = self._hits[int(row)].passage, self._events

            def work(passage: Passage = passage, events: "queue.SimpleQueue[Event]" = events) -> None:
                try:
                    open_file(Path(passage.path), passage.line)
                except OSError as error:
                    events.put(Problem(str(error)))

            threading.Thread(target=work, daemon=True).start()

    def _list_left_out(self, _: object) -> None:
        left_out = self._current.left_out if self._current else ()
        if left_out:
            lines = [f"{self._short(str(file.path))}: {file.detail or file.reason}" for file in left_out[:LISTED]]
            more = f"\n… and {len(left_out) - LISTED:,} more" if len(left_out) > LISTED else ""
            messagebox.showinfo("Left out", "\n".join(lines) + more, parent=self.root)

    # --- what the threads say

    def _take_events(self) -> None:
        while not self._events.empty():
            self._take(self._events.get())
        self.root.after(EVENT_MILLISECONDS, self._take_events)

    def _take(self, event: Event) -> None:
        if isinstance(event, Answer):
            if event.question == self._question.get().strip():
                self._show_hits(event.hits)
                if not event.hits:
                    self._show_state(*self._state_without_hits())
        elif isinstance(event, Progress):
            self._progress.configure(maximum=event.total, value=event.done)
            self._progress.grid()
            self._say(f"Indexing: {event.done:,} of {event.total:,} files")
            self._ask()  # what is indexed so far can be found already
        elif isinstance(event, Current):
            self._progress.grid_remove()
            was_known, self._current = self._current is not None, event
            left_out = f" · {len(event.left_out):,} left out (click to see what and why)" if event.left_out else ""
            self._say(f"{event.passages:,} passages of {event.files:,} files{left_out}")
            if event.changed or not was_known:
                self._ask()
        else:
            self._progress.grid_remove()
            self._say(event.message, ALARM)
            if event.remedy:
                self._current = None
                self._show_hits([])
                self._show_state(event.message, event.remedy)
            elif self._current is None and not self._hits:
                self._show_state("The folder cannot be searched", event.message)

    def _state_without_hits(self) -> tuple[str, str]:
        if self._current is None:
            return READING
        return NOTHING if self._current.passages else EMPTY

    def _show_hits(self, hits: list[Found]) -> None:
        if hits and hits == self._hits:  # a new drawing would lose the selection
            return
        self._hits = hits
        self._results.delete(*self._results.get_children())
        for row, (score, passage) in enumerate(hits):
            values = (f"{score:.2f}", self._short(passage.path), " ".join(passage.text.split()).lstrip("# ")[:300])
            self._results.insert("", "end", iid=str(row), values=values, tags=("shaded",) if row % 2 else ())
        if hits:
            self._state.place_forget()
            self._results.selection_set("0")
        else:
            self._select(None)

    def _show_state(self, title: str, remedy: str) -> None:
        """Says in the middle of the empty list what is going on and what can be done."""
        self._state_title["text"], self._state_remedy["text"] = title, remedy
        self._state.place(relx=0.5, rely=0.5, anchor="center")

    def _short(self, path: str) -> str:
        folder = self._search.folder if self._search else Path()
        return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path

    def _say(self, text: str, color: str = FAINT) -> None:
        self._status.configure(text=text, foreground=color)

    # --- the widgets, from top to bottom

    def _lay_out(self) -> None:
        self.root.title("Folder search")
        self.root.geometry(f"{self._pixels(1000)}x{self._pixels(680)}")
        self.root.minsize(self._pixels(560), self._pixels(420))
        page = ttk.Frame(self.root, padding=self._pixels(20))
        page.pack(fill="both", expand=True)
        page.columnconfigure(0, weight=1)
        page.rowconfigure(2, weight=1)
        page.rowconfigure(3, weight=1)
        self._lay_out_folder(page).grid(row=0, sticky="ew")
        self._lay_out_question(page).grid(row=1, sticky="ew", pady=self._pixels(14), ipady=self._pixels(4))
        self._lay_out_results(page).grid(row=2, sticky="nsew")
        self._lay_out_preview(page).grid(row=3, sticky="nsew", pady=(self._pixels(14), 0))
        self._lay_out_status(page).grid(row=4, sticky="ew", pady=(self._pixels(12), 0))
        self.root.bind("<Control-q>", lambda _: self.close())

    def _pixels(self, at_96_dpi: int) -> int:
        return round(at_96_dpi * self._scale)

    def _lay_out_folder(self, page: ttk.Frame) -> ttk.Frame:
        top = ttk.Frame(page)
        top.columnconfigure(0, weight=1)
        self._folder_label = ttk.Label(top, text="Choose the folder to search", foreground=FAINT)
        self._folder_label.grid(row=0, column=0, sticky="w")
        ttk.Button(top, text="Folder …", command=self._choose_folder).grid(row=0, column=1)
        return top

    def _lay_out_question(self, page: ttk.Frame) -> ttk.Entry:
        self._question = tk.StringVar()
        self._question.trace_add("write", self._typed)
        entry = ttk.Entry(page, textvariable=self._question, font=self._fonts.question)
        entry.bind("<Return>", self._open_selected)
        entry.bind("<Escape>", lambda _: self._question.set(""))
        for key, rows in (("Down", 1), ("Up", -1), ("Next", 8), ("Prior", -8)):
            entry.bind(f"<{key}>", lambda _, rows=rows: self._move(rows))  # type: ignore[misc]
        entry.focus_set()
        return entry

    def _lay_out_results(self, page: ttk.Frame) -> ttk.Frame:
        table = ttk.Frame(page, style="Bordered.TFrame", padding=1)
        table.columnconfigure(0, weight=1)
        table.rowconfigure(0, weight=1)
        self._results = ttk.Treeview(table, columns=("score", "file", "passage"), show="headings", selectmode="browse")
        for column, title, width in (("score", "Score", 64), ("file", "File", 230), ("passage", "Passage", 620)):
            self._results.heading(column, text=title, anchor="w")
            self._results.column(column, width=self._pixels(width), stretch=column == "passage", anchor="w")
        self._results.tag_configure("shaded", background=SHADE)
        scroll = ttk.Scrollbar(table, command=self._results.yview)
        self._results.configure(yscrollcommand=scroll.set)
        self._results.grid(row=0, column=0, sticky="nsew")
        scroll.grid(row=0, column=1, sticky="ns")
        self._results.bind("<<TreeviewSelect>>", self._select)
        self._results.bind("<Double-1>", self._open_selected)
        self._results.bind("<Return>", self._open_selected)
        self._state = ttk.Frame(self._results)
        self._state_title = ttk.Label(self._state, font=self._fonts.bold, justify="center")
        self._state_remedy = ttk.Label(self._state, justify="center", foreground=FAINT)
        for label in (self._state_title, self._state_remedy):
            label.pack(pady=self._pixels(4))
        self._results.bind("<Configure>", self._wrap_state)
        self._show_state(*WELCOME)
        return table

    def _wrap_state(self, event: "tk.Event[Any]") -> None:
        for label in (self._state_title, self._state_remedy):
            label["wraplength"] = min(self._pixels(560), max(self._pixels(200), event.width - self._pixels(40)))

    def _lay_out_preview(self, page: ttk.Frame) -> ttk.Frame:
        frame = ttk.Frame(page, style="Bordered.TFrame", padding=1)
        frame.columnconfigure(0, weight=1)
        frame.rowconfigure(0, weight=1)
        self._preview = tk.Text(
            frame, height=8, wrap="word", font="TkDefaultFont", background=SHADE, foreground=INK, relief="flat",
            padx=self._pixels(16), pady=self._pixels(12), spacing1=1, spacing3=2, state="disabled",
            highlightthickness=0,
        )  # fmt: skip
        self._preview.tag_configure("place", font=self._fonts.bold)
        self._preview.tag_configure("context", foreground=ACCENT)
        scroll = ttk.Scrollbar(frame, command=self._preview.yview)
        self._preview.configure(yscrollcommand=scroll.set)
        self._preview.grid(row=0, column=0, sticky="nsew")
        scroll.grid(row=0, column=1, sticky="ns")
        return frame

    def _lay_out_status(self, page: ttk.Frame) -> ttk.Frame:
        bottom = ttk.Frame(page)
        bottom.columnconfigure(0, weight=1)
        self._status = ttk.Label(bottom, foreground=FAINT)
        self._status.grid(row=0, column=0, sticky="ew")
        self._status.bind("<Configure>", lambda event: self._status.configure(wraplength=event.width))
        self._status.bind("<Button-1>", self._list_left_out)
        self._progress = ttk.Progressbar(bottom, length=self._pixels(200))
        self._progress.grid(row=0, column=1)
        self._progress.grid_remove()
        return bottom


if __name__ == "__main__":
    main()
