"""The About tab: what the page can and cannot know, how often it is right, what happens to photos, how programs ask it."""

from html import escape

from emotion.labels import EMOTIONS
from page.uploads import KEEP_MINUTES, Settings


def about_html(record: dict, settings: Settings) -> str:
    """Builds the About text.

    Args:
        record: the model's record; its accuracy and confusion matrix are shown when they are there.
        settings: the operator's.
    """
    return f"""
<div class="about prose">
<h2>What this page does</h2>
<p>It finds faces in a photo, a clip or the camera's picture and tells which of seven emotions each one appears to show:
{", ".join(EMOTIONS)}. A small neural network trained on the FER-2013 photos reads a grey picture of 48 by 48 pixels of each face.
{_pretraining(record)}Everything happens on the computer that runs this page; it needs no network.</p>
<h2>How often it is right</h2>
{_accuracy_html(record)}
<h2>What it cannot know</h2>
<p>A face shows an expression, not what a person feels. The photos it learned from were found by web search and labelled by
people who often disagreed, and they do not show all ages, skin tones and cultures equally. Glasses, hands, shadows and turned
heads lead to mistakes. Do not use it to decide anything about a person. In the European Union, reading emotions of people at
work or in education is forbidden except for medical or safety reasons (AI Act, Article 5).</p>
<h2>What happens to photos and clips</h2>
<p>{_storage(settings)}</p>
<p>A public link, made with --share, carries them through Gradio's servers on their way to this computer.</p>
<h2>Use it from a program</h2>
<pre><code>from gradio_client import Client, handle_file
client = Client("http://127.0.0.1:7860")
annotated, reading = client.predict(handle_file("photo.jpg"), api_name="/predict")
clip, timeline, summary = client.predict(handle_file("clip.mp4"), api_name="/predict_video")
batch, table = client.predict([handle_file("one.jpg"), handle_file("two.jpg")], api_name="/predict_batch")</code></pre>
</div>
"""


def _pretraining(record: dict) -> str:
    origins = record.get("pretrained_on")
    return f"Before that, a part of it had learned from other pictures: {escape('; '.join(origins))}.\n" if origins else ""


def _storage(settings: Settings) -> str:
    frames = "Frames of the camera in the Live tab are never written to a disk."
    if settings.keep_folder:
        return f"Whoever runs this page has chosen to keep every photo and clip that is added. {frames}"
    return (
        "They are read on the computer that runs this page and sent nowhere else. While you look at an answer, the upload and "
        "what was made of it lie in a private temporary folder there; they are deleted "
        f"{KEEP_MINUTES} minutes after they were added, and when the page stops. {frames}"
    )


def _accuracy_html(record: dict) -> str:
    scores = record.get("metrics", {}).get("private_test")
    if not scores:
        return "<p>This model comes without a record of its accuracy.</p>"
    accuracy, recalls = scores["accuracy"], {name: scores["per_class"][name]["recall"]["value"] for name in EMOTIONS}
    best, worst = max(recalls, key=recalls.get), min(recalls, key=recalls.get)
    return (
        f"<p>For <strong>{accuracy['value']:.1%}</strong> of {scores['n']:,} faces that it had never seen (the private test set "
        f"of FER-2013) its first choice was the labelled emotion; the 95% interval is {accuracy['low']:.1%} to "
        f"{accuracy['high']:.1%}. "
        f"It is best at {best}, of which it finds {recalls[best]:.0%}, and worst at {worst} ({recalls[worst]:.0%}). "
        f"People who labelled such photos themselves were right for about 65% (Goodfellow et al. 2013).</p>"
        + _matrix_html(scores["confusion"])
    )


def _matrix_html(confusion: list[list[int]]) -> str:
    """Builds the confusion matrix (7 x 7 counts, rows are the labels) as a table of shares of each row."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in EMOTIONS)
    rows = []
    for name, counts in zip(EMOTIONS, confusion, strict=True):
        shares = [count / max(sum(counts), 1) for count in counts]
        cells = "".join(f'<td style="{_shade(share)}">{share:.0%}</td>' for share in shares)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        '<div class="matrix" tabindex="0" role="region" aria-label="Confusion matrix"><table>'
        "<caption>Of the faces labelled as the row says, how many it called what the column says</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _shade(share: float) -> str:
    # Never so dark that the page's own text colour, in light or dark mode, would not be legible on it.
    return f"background:color-mix(in srgb, var(--primary-600) {55 * share:.0f}%, transparent)"
