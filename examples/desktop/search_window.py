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
from tkinter import filedialog, font, messagebox, ttk
from typing import Any, NamedTuple

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
)

from gte_sdk.passages.searching import Found

EVENT_MILLISECONDS = 40
TYPING_MILLISECONDS = 150
CLOSE_SECONDS = 5.0

INK, FAINT, PAPER, SHADE, LINE = "#1f2430", "#6b7280", "#ffffff", "#f5f6f8", "#dfe2e8"
ACCENT, CHOSEN, ALARM = "#2f5fd0", "#e4ecff", "#b42318"
HINT = "Ask in your own words, for instance\n“how do I get my money back”"


def main() -> None:
    parser = argparse.ArgumentParser(description="Search a folder by meaning.")
    parser.add_argument("folder", type=Path, nargs="?", help="default: the folder of the last time")
    folder: Path | None = parser.parse_args().folder
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
        self._skipped: tuple[str, ...] = ()
        self._typing = ""
        self._fonts = _style(root)
        self._lay_out()
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.after(EVENT_MILLISECONDS, self._take_events)

    def show_folder(self, folder: Path) -> None:
        if self._search:
            self._search.close()
        self._events = queue.SimpleQueue()  # what the search before still says goes to the queue before
        self._search = FolderSearch(folder, index_of(folder, self.data), self._events.put)
        home = Path.home()
        self._folder_label["text"] = str(Path("~", folder.relative_to(home)) if folder.is_relative_to(home) else folder)
        self._say("Looking at the files …")
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

    def _to_results(self, _: object) -> None:
        self._results.focus_set()

    def _typed(self, *_: object) -> None:
        if self._typing:
            self.root.after_cancel(self._typing)
        self._typing = self.root.after(TYPING_MILLISECONDS, self._ask)

    def _ask(self) -> None:
        self._typing = ""
        question = self._question.get().strip()
        if not question or self._search is None:
            self._show_hits([])
        else:
            self._search.ask(question)

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
            path, events = Path(self._hits[int(row)].passage.path), self._events

            def work(path: Path = path, events: "queue.SimpleQueue[Event]" = events) -> None:
                try:
                    open_file(path)
                except OSError as error:
                    events.put(Problem(str(error)))

            threading.Thread(target=work, daemon=True).start()

    def _list_skipped(self, _: object) -> None:
        if self._skipped:
            more = f"\n… and {len(self._skipped) - 20} more" if len(self._skipped) > 20 else ""
            messagebox.showinfo("Left out", "\n".join(self._skipped[:20]) + more, parent=self.root)

    # --- what the threads say

    def _take_events(self) -> None:
        while not self._events.empty():
            self._take(self._events.get())
        self.root.after(EVENT_MILLISECONDS, self._take_events)

    def _take(self, event: Event) -> None:
        if isinstance(event, Answer):
            if event.question == self._question.get().strip():
                self._show_hits(event.hits)
        elif isinstance(event, Progress):
            self._progress.configure(maximum=event.total, value=event.done)
            self._progress.grid()
            self._say(f"Indexing: {event.done:,} of {event.total:,} files")
            self._ask()  # what is indexed so far can be found already
        elif isinstance(event, Current):
            self._progress.grid_remove()
            self._skipped = event.skipped
            left_out = f" · {len(event.skipped):,} left out (click to see why)" if event.skipped else ""
            self._say(f"{event.passages:,} passages of {event.files:,} files{left_out}")
            if event.changed:
                self._ask()
        else:
            self._progress.grid_remove()
            self._say(event.message, ALARM)

    def _show_hits(self, hits: list[Found]) -> None:
        if hits == self._hits:  # a new drawing would lose the selection
            return
        self._hits = hits
        self._results.delete(*self._results.get_children())
        for row, (score, passage) in enumerate(hits):
            values = (f"{score:.2f}", self._short(passage.path), " ".join(passage.text.split()).lstrip("# ")[:300])
            self._results.insert("", "end", iid=str(row), values=values, tags=("shaded",) if row % 2 else ())
        if hits:
            self._hint.place_forget()
            self._results.selection_set("0")
        else:
            self._hint.place(relx=0.5, rely=0.5, anchor="center")
            self._select(None)

    def _short(self, path: str) -> str:
        folder = self._search.folder if self._search else Path()
        return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path

    def _say(self, text: str, color: str = FAINT) -> None:
        self._status.configure(text=text, foreground=color)

    # --- the widgets, from top to bottom

    def _lay_out(self) -> None:
        self.root.title("Folder search")
        self.root.geometry("1000x680")
        self.root.minsize(560, 360)
        page = ttk.Frame(self.root, padding=20)
        page.pack(fill="both", expand=True)
        page.columnconfigure(0, weight=1)
        page.rowconfigure(2, weight=3)
        page.rowconfigure(3, weight=2)
        self._lay_out_folder(page).grid(row=0, sticky="ew")
        self._lay_out_question(page).grid(row=1, sticky="ew", pady=14, ipady=4)
        self._lay_out_results(page).grid(row=2, sticky="nsew")
        self._lay_out_preview(page).grid(row=3, sticky="nsew", pady=(14, 0))
        self._lay_out_status(page).grid(row=4, sticky="ew", pady=(12, 0))
        self.root.bind("<Control-q>", lambda _: self.close())

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
        entry.bind("<Down>", self._to_results)
        entry.focus_set()
        return entry

    def _lay_out_results(self, page: ttk.Frame) -> ttk.Frame:
        table = ttk.Frame(page, style="Bordered.TFrame", padding=1)
        table.columnconfigure(0, weight=1)
        table.rowconfigure(0, weight=1)
        self._results = ttk.Treeview(table, columns=("score", "file", "passage"), show="headings", selectmode="browse")
        for column, title, width in (("score", "Score", 64), ("file", "File", 230), ("passage", "Passage", 620)):
            self._results.heading(column, text=title, anchor="w")
            self._results.column(column, width=width, stretch=column == "passage", anchor="w")
        self._results.tag_configure("shaded", background=SHADE)
        scroll = ttk.Scrollbar(table, command=self._results.yview)
        self._results.configure(yscrollcommand=scroll.set)
        self._results.grid(row=0, column=0, sticky="nsew")
        scroll.grid(row=0, column=1, sticky="ns")
        self._results.bind("<<TreeviewSelect>>", self._select)
        self._results.bind("<Double-1>", self._open_selected)
        self._results.bind("<Return>", self._open_selected)
        self._hint = ttk.Label(self._results, text=HINT, justify="center", foreground=FAINT)
        self._hint.place(relx=0.5, rely=0.5, anchor="center")
        return table

    def _lay_out_preview(self, page: ttk.Frame) -> tk.Text:
        self._preview = tk.Text(
            page, height=8, wrap="word", font="TkDefaultFont", background=SHADE, foreground=INK, relief="flat", padx=16,
            pady=12, spacing1=1, spacing3=2, state="disabled", highlightthickness=1, highlightbackground=LINE,
        )  # fmt: skip
        self._preview.tag_configure("place", font=self._fonts.bold)
        self._preview.tag_configure("context", foreground=ACCENT)
        return self._preview

    def _lay_out_status(self, page: ttk.Frame) -> ttk.Frame:
        bottom = ttk.Frame(page)
        bottom.columnconfigure(0, weight=1)
        self._status = ttk.Label(bottom, foreground=FAINT)
        self._status.grid(row=0, column=0, sticky="w")
        self._status.bind("<Button-1>", self._list_skipped)
        self._progress = ttk.Progressbar(bottom, length=200)
        self._progress.grid(row=0, column=1)
        self._progress.grid_remove()
        return bottom


class Fonts(NamedTuple):
    """Kept by the window: Tk forgets a font with its last reference."""

    question: font.Font
    bold: font.Font


def _style(root: tk.Tk) -> Fonts:
    """The system's own look on Windows and macOS; on X11, where Tk has none, a plain light one."""
    default = font.nametofont("TkDefaultFont")
    question, bold = default.copy(), default.copy()
    question["size"] = question.actual("size") + 4
    bold["weight"] = "bold"
    style = ttk.Style(root)
    if root.tk.call("tk", "windowingsystem") == "x11":
        style.theme_use("clam")
        root.configure(background=PAPER)
        flat = {"bordercolor": LINE, "lightcolor": PAPER, "darkcolor": PAPER}
        style.configure(".", background=PAPER, foreground=INK, **flat)
        style.configure("Bordered.TFrame", background=LINE)
        style.layout("Treeview", [("Treeview.treearea", {"sticky": "nswe"})])  # without its own border
        style.configure("Treeview", fieldbackground=PAPER)
        style.configure(
            "Treeview.Heading", background=SHADE, foreground=FAINT, relief="flat", padding=(4, 8), font=default
        )
        style.map("Treeview.Heading", background=[("active", SHADE)])
        style.map("Treeview", background=[("selected", CHOSEN)], foreground=[("selected", INK)])
        style.configure("TEntry", fieldbackground=PAPER, padding=8)
        style.map("TEntry", bordercolor=[("focus", ACCENT)], lightcolor=[("focus", ACCENT)])
        style.configure("TButton", background=SHADE, padding=(14, 6))
        style.map("TButton", background=[("active", CHOSEN)])
        # A thumb in a trough, without arrows and grip.
        thumb: Any = ("Vertical.Scrollbar.thumb", {"expand": "1", "sticky": "nswe"})
        style.layout("Vertical.TScrollbar", [("Vertical.Scrollbar.trough", {"sticky": "ns", "children": [thumb]})])
        style.configure("TScrollbar", background=LINE, troughcolor=PAPER, gripcount=0, arrowsize=10, bordercolor=PAPER)
        style.map("TScrollbar", background=[("active", FAINT), ("disabled", PAPER)])
        style.configure("TProgressbar", background=ACCENT, troughcolor=SHADE, lightcolor=ACCENT, darkcolor=ACCENT)
    style.configure("Treeview", rowheight=int(default.metrics("linespace") * 1.9))
    return Fonts(question, bold)


if __name__ == "__main__":
    main()
