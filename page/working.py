"""What a visitor sees while a long job runs, and how often."""

import time
from html import escape

SECONDS_BETWEEN = 0.25
"""Seconds between two signs of progress: smooth to the eye, and Cancel is obeyed at each of them."""

CSS = """
.progress { background: var(--background-fill-secondary); border-radius: 99px; height: 0.8rem; overflow: hidden;
        margin-top: 0.9rem; }
.progress span { display: block; height: 100%; border-radius: 99px; background: var(--color-accent); min-width: 0.8rem; }
.card.working { min-height: 8.5rem; }
#clip:has(video[src]) .source-selection { display: none; } /* Gradio cuts it off below a clip */
.card.working p { font-variant-numeric: tabular-nums; }
"""

SCROLL_TO = """() => {{
    if (window.innerWidth < 700) document.querySelector("{}")?.scrollIntoView({{ behavior: "smooth" }});
}}"""
"""On a phone the answer stands below what was added: brings it into view."""


class Clock:
    """Tells when it is time for the next sign of progress, and how long the rest will take."""

    def __init__(self):
        self._start = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def is_due(self) -> bool:
        """Returns whether `SECONDS_BETWEEN` have passed since the last time that it was due."""
        if time.monotonic() - self._last < SECONDS_BETWEEN:
            return False
        self._last = time.monotonic()
        return True

    def left(self, share: float) -> str:
        """Says how long the rest will take: "about 12 s left", or "" while that is not known.

        Args:
            share: how much is done, 0..1.
        """
        if self.seconds < 1 or share < 0.02:
            return ""
        return f"about {clock(self.seconds * (1 - share) / share)} left"


def clock(seconds: float) -> str:
    """Writes a length of time: "0.8 s", "12 s", "2 min 5 s"."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def working_html(title: str, share: float, note: str) -> str:
    """Builds the card with the progress bar.

    Args:
        title: what is going on.
        share: how much is done, 0..1.
        note: what stands below the bar.
    """
    done = round(100 * share)
    note = f"{done}% done{', ' + note if note else ''}" if done else note
    return (
        f'<section class="card working"><h2>{escape(title)}</h2><div class="progress" role="progressbar" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{done}" aria-label="{escape(title)}"><span style="width:{done}%"></span></div>'
        f"<p>{escape(note)}</p></section>"
    )
