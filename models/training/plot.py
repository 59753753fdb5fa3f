"""Draws the curves of one or several runs as an SVG file.

Owns: reading log.jsonl and the drawing. Does not know: how the numbers came about.
The idea: a polyline needs no plotting library. The last row of a step wins, since a run that was killed after
logging repeats the steps since its last save.
"""
import argparse
import html
import json
import os

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 360, 48, 16, 16, 40
COLORS = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#b9770e")


def read(path):
    """{"train": [(tokens, loss)], "val": [(tokens, loss)]} of a log, in order."""
    curves, per_step = {"train": {}, "val": {}}, 1
    with open(path) as file:
        for line in file:
            if not line.endswith("\n"):
                break  # a run is writing it, or was killed while it did
            row = json.loads(line)
            if "loss" in row:
                per_step = row["tokens"] // row["step"]
                curves["train"][row["step"]] = row["loss"]
            elif "val_loss" in row:
                curves["val"][row["step"]] = row["val_loss"]
    return {part: [(step * per_step, loss) for step, loss in sorted(points.items())] for part, points in curves.items()}


def draw(runs):
    """runs {label: curves}: the training loss as a thin line, validation as a thick one, all on one scale.

    A distilled run's training loss is against its teacher, not against the labels as its validation loss is.
    """
    points = [point for curves in runs.values() for part in curves.values() for point in part]
    end, low = max(tokens for tokens, _ in points), min(loss for _, loss in points)
    high = min(max(loss for _, loss in points), 3 * low + 1)  # the first steps would flatten all the rest

    def x(tokens):
        return LEFT + (WIDTH - LEFT - RIGHT) * tokens / end

    def y(loss):
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(loss, high)) / ((high - low) or 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             '<title>Loss in nats per token, in training and validation, over millions of tokens</title>',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    step = 1 if high - low > 3 else 0.25
    for tick in range(int(low / step) + 1, int(high / step) + 1):
        parts.append(f'<path d="M{LEFT} {y(tick * step):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick * step) + 4:.1f}" text-anchor="end">{tick * step:g}</text>')
    for quarter in range(5):
        tokens = end * quarter / 4
        parts.append(f'<text x="{x(tokens):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{tokens / 1e6:.1f}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">million tokens; thin: training, thick: validation</text>')
    for i, (label, curves) in enumerate(runs.items()):
        color = COLORS[i % len(COLORS)]
        for part, width, strength in (("train", 1, 0.4), ("val", 2, 1)):
            path = " ".join(f"{x(tokens):.1f},{y(loss):.1f}" for tokens, loss in curves[part])
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}" opacity="{strength}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{TOP + 14 + 16 * i}" text-anchor="end" fill="{color}">{html.escape(label)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", help="folders of runs, each with a log.jsonl; `LABEL=FOLDER` gives it another name")
    parser.add_argument("svg", help="file to write")
    args = parser.parse_args()
    runs = {}
    for run in args.runs:
        label, _, folder = run.rpartition("=")
        runs[label or os.path.basename(os.path.normpath(folder))] = read(os.path.join(folder, "log.jsonl"))
    with open(args.svg, "w") as file:
        file.write(draw(runs))


if __name__ == "__main__":
    main()
