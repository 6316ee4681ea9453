"""How the window of search_window.py looks: its colours, its fonts, and the resolution of the screen."""

import re
import subprocess
import sys
import tkinter as tk
from tkinter import font, ttk
from typing import Any, NamedTuple

INK, FAINT, PAPER, SHADE, LINE = "#1f2430", "#6b7280", "#ffffff", "#f5f6f8", "#dfe2e8"
ACCENT, CHOSEN, ALARM = "#2f5fd0", "#e4ecff", "#b42318"


class Fonts(NamedTuple):
    """Kept by the window: Tk forgets a font with its last reference."""

    question: font.Font
    bold: font.Font


def know_the_resolution() -> None:
    """Tells Windows that this process draws in real pixels; else it draws small and Windows blurs it to size."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.shcore.SetProcessDpiAwareness(1)


def scale_to_screen(root: tk.Tk) -> float:
    """Makes fonts as large as the desktop wants them. Returns how many pixels stand for one at 96 dots per inch."""
    if root.tk.call("tk", "windowingsystem") == "x11":
        # X servers say 96 whatever the screen is. What the desktop wants is in its resources, which Tk does not ask.
        try:
            resources = subprocess.run(
                ["xrdb", "-query"], capture_output=True, text=True, timeout=5, check=False
            ).stdout
        except (OSError, subprocess.SubprocessError):
            resources = ""
        wanted = re.search(r"^Xft\.dpi:\s*(\d{2,3})", resources, re.MULTILINE)
        if wanted:
            root.tk.call("tk", "scaling", int(wanted[1]) / 72)
            for name in font.names(root):
                named = font.nametofont(name, root)
                size = named["size"]  # in points, or in pixels where it is negative
                named["size"] = size if size > 0 else round(size * int(wanted[1]) / 96)
    return 1.0 if root.tk.call("tk", "windowingsystem") == "aqua" else root.winfo_fpixels("1i") / 96


def style_of(root: tk.Tk, scale: float) -> Fonts:
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
            "Treeview.Heading",
            background=SHADE,
            foreground=FAINT,
            relief="flat",
            font=default,
            padding=(round(4 * scale), round(8 * scale)),
        )
        style.map("Treeview.Heading", background=[("active", SHADE)])
        style.map("Treeview", background=[("selected", CHOSEN)], foreground=[("selected", INK)])
        style.configure("TEntry", fieldbackground=PAPER, padding=round(8 * scale))
        style.map("TEntry", bordercolor=[("focus", ACCENT)], lightcolor=[("focus", ACCENT)])
        style.configure("TButton", background=SHADE, padding=(round(14 * scale), round(6 * scale)))
        style.map("TButton", background=[("active", CHOSEN)])
        # A thumb in a trough, without arrows and grip.
        thumb: Any = ("Vertical.Scrollbar.thumb", {"expand": "1", "sticky": "nswe"})
        style.layout("Vertical.TScrollbar", [("Vertical.Scrollbar.trough", {"sticky": "ns", "children": [thumb]})])
        style.configure(
            "TScrollbar",
            background=LINE,
            troughcolor=PAPER,
            gripcount=0,
            arrowsize=round(10 * scale),
            bordercolor=PAPER,
        )
        style.map("TScrollbar", background=[("active", FAINT), ("disabled", PAPER)])
        style.configure("TProgressbar", background=ACCENT, troughcolor=SHADE, lightcolor=ACCENT, darkcolor=ACCENT)
    style.configure("Treeview", rowheight=int(default.metrics("linespace") * 1.9))
    return Fonts(question, bold)
