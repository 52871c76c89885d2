"""How the page looks: theme, CSS and the HTML pieces that show an answer.

Words and numbers come in, markup goes out; nothing here knows the model. Every font is one that the visitor's system
already has, so that the page fetches nothing from other hosts.
"""

from html import escape
from typing import NamedTuple

import gradio as gr

from emotion.explain import Cue
from emotion.labels import COLOURS, EMOJI, EMOTIONS
from emotion.verdict import Verdict, percent
from page.uploads import KEEP_MINUTES

SYSTEM_FONTS = ["Segoe UI", "Helvetica Neue", "Roboto", "Noto Sans", "Liberation Sans", "Arial", "sans-serif"]
MONOSPACE_FONTS = ["SF Mono", "Cascadia Mono", "Roboto Mono", "DejaVu Sans Mono", "monospace"]

CSS = """
.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto !important; }
.html-container { padding: 0 !important; }
.prose h1 { font-size: 1.7rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0; }
.lead { color: var(--body-text-color-subdued); font-size: 1.02rem; line-height: 1.5; margin: 0.35rem 0 0; }
.note { color: var(--body-text-color-subdued); font-size: 0.85rem; line-height: 1.45; margin: 0; }
.card { background: var(--block-background-fill); border: 1px solid var(--border-color-primary);
        border-radius: var(--radius-lg); padding: 1.15rem 1.25rem; }
.card h2 { font-size: 1.35rem; line-height: 1.25; margin: 0; }
.card p { margin: 0.3rem 0 0; line-height: 1.5; }
.card.hint { display: flex; flex-direction: column; align-items: center; justify-content: center; text-align: center;
        min-height: 420px; border-style: dashed; background: transparent; }
.card.hint p { color: var(--body-text-color-subdued); max-width: 24rem; }
.card.hint .emoji { letter-spacing: 0.3rem; margin-bottom: 0.7rem; }
.card.trouble { border-left: 5px solid #E69F00; }
.verdict { display: flex; gap: 0.95rem; align-items: flex-start; }
.emoji { font-size: 2.3rem; line-height: 1.1; flex: none; }
.percent { color: var(--body-text-color-subdued); font-weight: 400; }
.bars { list-style: none; margin: 1.1rem 0 0; padding: 0; display: grid; gap: 0.45rem; }
.bars li { display: grid; grid-template-columns: 7.2rem 1fr 3.2rem; gap: 0.7rem; align-items: center; margin: 0; padding: 0; }
.bars .track { background: var(--background-fill-secondary); border-radius: 99px; height: 0.7rem; overflow: hidden; }
.bars .fill { display: block; height: 100%; border-radius: 99px; }
.bars .value { text-align: right; font-variant-numeric: tabular-nums; }
.bars:not(.still) li:first-child { font-weight: 600; }
.others { list-style: none; margin: 0.3rem 0 0; padding: 0; }
#live .capture-button { display: none; } /* pressed by the page's own buttons */
#live .button-wrap:not(:has(.device-select-button, select)) { visibility: hidden; }
#live .boxes { position: absolute; pointer-events: none; }
.cues { margin-top: 1.1rem; padding-top: 0.9rem; border-top: 1px solid var(--border-color-primary); }
.cues h3 { font-size: 0.95rem; margin: 0; }
.cues ul { list-style: none; margin: 0.4rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.4rem; }
.cues li { background: var(--background-fill-secondary); border-radius: 99px; padding: 0.25rem 0.8rem; margin: 0; }
.cues li span { color: var(--body-text-color-subdued); font-size: 0.85rem; font-variant-numeric: tabular-nums; }
.timing { color: var(--body-text-color-subdued); font-size: 0.85rem; margin-top: 1rem !important; }
.about { max-width: 46rem; }
.about h2 { font-size: 1.15rem; margin: 1.5rem 0 0.3rem; }
.about p { line-height: 1.55; margin: 0.3rem 0; }
.about pre { white-space: pre-wrap; }
.matrix { overflow-x: auto; }
.matrix table { border-collapse: separate; border-spacing: 2px; font-size: 0.85rem; margin: 0.6rem 0 0; width: 100%; }
.matrix caption { text-align: left; color: var(--body-text-color-subdued); padding-bottom: 0.3rem; }
.matrix th { font-weight: 500; padding: 0.25rem 0.4rem; text-align: right; border: 0; }
.matrix thead th { text-align: center; }
.matrix td { text-align: center; padding: 0.3rem 0.2rem; min-width: 3rem; border: 0; border-radius: 4px; }
#annotated img { max-height: 360px; width: 100%; object-fit: contain; cursor: pointer; }
@media (max-width: 640px) {
  .prose h1 { font-size: 1.4rem; }
  .card.hint { min-height: 170px; }
  #options { flex-wrap: wrap; gap: 0.5rem; }
  #options > * { flex: 1 0 100% !important; }
  .bars li { grid-template-columns: 6.3rem 1fr 2.8rem; gap: 0.5rem; }
}
"""


def theme() -> gr.themes.Base:
    """Returns the page's theme: quiet greys and one accent, so that the emotions' own colours carry the meaning."""
    return gr.themes.Base(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=[gr.themes.Font(name) for name in SYSTEM_FONTS],
        font_mono=[gr.themes.Font(name) for name in MONOSPACE_FONTS],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_secondary="*neutral_100",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="*block_background_fill",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
    )


class Look(NamedTuple):
    """How an emotion is shown: the name of its entry in `labels`, its emoji and its hex colour."""

    emotion: str
    emoji: str
    colour: str


def look(emotion: str) -> Look:
    """Returns how an emotion of either view is shown; "calm" looks like "neutral"."""
    name = emotion if emotion in EMOJI else "neutral"
    return Look(name, EMOJI[name], COLOURS[name])


def emoji(verdict: Verdict) -> str:
    """Returns the emoji of what a verdict names."""
    return "".join(look(name).emoji for name in verdict.named) or "🤔"


def verdict_html(verdict: Verdict, timing: str, shows: str = "") -> str:
    """Builds the answer for one face: headline, explanation, a bar for every emotion, what the face `shows` (HTML) and one line
    on how long it took."""
    beside = "" if verdict.confidence is None else f' <span class="percent">{escape(percent(verdict.confidence))}</span>'
    explanation = escape(" ".join(verdict.sentences()))
    return (
        '<section class="card" role="status"><div class="verdict">'
        f'<span class="emoji" aria-hidden="true">{emoji(verdict)}</span>'
        f"<div><h2>{escape(verdict.label.capitalize())}{beside}</h2><p>{explanation}</p></div></div>"
        f'{bars_html(verdict)}{shows}<p class="timing">{escape(timing)}</p></section>'
    )


def bars_html(verdict: Verdict, ordered: bool = True) -> str:
    """Builds a bar for every emotion: most probable first, or in the order of `EMOTIONS`, which keeps still in a live view."""
    names = verdict.scores if ordered else [name for name in EMOTIONS if name in verdict.scores]
    bars = "".join(_bar(name, verdict.scores[name]) for name in names)
    return f'<ul class="bars{"" if ordered else " still"}" aria-label="Probability of each emotion">{bars}</ul>'


def cues_html(cues: list[Cue], turned: bool) -> str:
    """Builds the list of what a face shows, with the ratios measured on it and those of neutral faces.

    Args:
        cues: as `emotion.explain.cues` returns them.
        turned: the head is turned too far for them.
    """
    if turned:
        text = "<p>The head is turned too far to compare brows, eyes and mouth with those of other faces.</p>"
    elif not cues:
        text = "<p>Nothing that stands out: brows, eyes and mouth are placed as in neutral faces.</p>"
    else:
        rows = (f"<li>{escape(c.words)} <span>{c.value:.2f}, neutral faces {c.neutral:.2f}</span></li>" for c in cues)
        text = f"<ul>{''.join(rows)}</ul>"
    return f'<div class="cues"><h3>What the face shows</h3>{text}<p class="note">{CUES_NOTE}</p></div>'


def trouble_html(title: str, sentences: str) -> str:
    """Builds the message that stands where the answer would: what happened and what to do."""
    return f'<section class="card trouble" role="alert"><h2>{escape(title)}</h2><p>{escape(sentences)}</p></section>'


def _bar(name: str, score: float) -> str:
    shown = look(name)
    return (
        f'<li><span><span aria-hidden="true">{shown.emoji}</span> {escape(name)}</span><span class="track" aria-hidden="true">'
        f'<span class="fill" style="width:{score:.1%};background:{shown.colour}"></span></span>'
        f'<span class="value">{escape(percent(score))}</span></li>'
    )


CUES_NOTE = "Measured on the landmarks, in distances between the eyes; the model does not see these numbers."

WELCOME = """
<h1>What emotion does a face show?</h1>
<p class="lead">Add a photo or a clip, or turn on the camera: every face gets a box, the emotion it appears to show and the
probabilities of all seven.</p>
"""

SCROLL_TO_ANSWER = """() => {
    const answer = document.querySelector("#annotated") ?? document.querySelector("#answer .card:not(.hint)");
    if (answer && window.innerWidth < 700) answer.scrollIntoView({ behavior: "smooth" });
}"""
"""On a phone the answer stands below the photo: brings it into view."""

NAME_EXAMPLES = """() => {
    const name = () => {
        const buttons = document.querySelectorAll("#examples button");
        buttons.forEach((button, i) => button.setAttribute("aria-label", `Example photo ${i + 1}`));
        if (!buttons.length) setTimeout(name, 200);
    };
    name();
}"""
"""Names the example pictures for screen readers, which Gradio leaves nameless."""


def privacy_html(kept: bool) -> str:
    """Builds the sentence beside an upload: what happens to it."""
    if kept:
        return '<p class="note">Photos are read on the computer that runs this page, and <strong>kept there</strong>.</p>'
    return (
        '<p class="note">Photos are read on the computer that runs this page. Its temporary copies are deleted after '
        f"{KEEP_MINUTES} minutes.</p>"
    )


KEPT = """
<section class="card trouble" role="note"><h2>What you add here is kept</h2>
<p>Whoever runs this page has chosen to keep every photo and clip that is added. Camera frames of the Live tab are not kept.</p>
</section>
"""

WAITING = """
<section class="card hint"><span class="emoji" aria-hidden="true">😄😲😢</span><h2>The answer appears here</h2>
<p>Add a photo or click an example. There is nothing to set.</p></section>
"""
