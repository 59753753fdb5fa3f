"""Draws the curves of a run as an SVG file.

Owns: reading log.jsonl and the drawing. Does not know: how the numbers came about.
The idea: a polyline needs no plotting library. The last row of a step wins, since a run that was killed after
logging repeats the steps since its last save.
"""
import argparse
import json

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 360, 48, 16, 16, 40


def read(path):
    """Training and validation loss as sorted (step, loss) lists, and tokens per step."""
    train, val, per_step = {}, {}, 1
    with open(path) as file:
        for row in map(json.loads, file):
            if "loss" in row:
                train[row["step"]] = row["loss"]
                per_step = row["tokens"] // row["step"]
            elif "val_loss" in row:
                val[row["step"]] = row["val_loss"]
    return sorted(train.items()), sorted(val.items()), per_step


def draw(train, val, per_step):
    end = max(step for step, _ in train)
    values = [loss for _, loss in train + val]
    low, high = min(values), max(values)

    def x(step):
        return LEFT + (WIDTH - LEFT - RIGHT) * step / end

    def y(loss):
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / ((high - low) or 1)

    def line(points, color, width):
        path = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)
        return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             '<title>Loss in nats per token, in training and validation, over millions of tokens</title>',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for loss in range(int(low) + 1, int(high) + 1):
        parts.append(f'<path d="M{LEFT} {y(loss):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss}</text>')
    for quarter in range(5):
        step = end * quarter / 4
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{step * per_step / 1e6:.1f}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">million tokens</text>')
    parts.append(line(train, "#9bb8d3", 1) + line(val, "#c0392b", 2))
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{TOP + 14}" text-anchor="end"><tspan fill="#6b93b8">training</tspan> '
                 f'<tspan fill="#c0392b">validation</tspan>, nats per token</text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", help="log.jsonl of a run")
    parser.add_argument("svg", help="file to write")
    args = parser.parse_args()
    with open(args.svg, "w") as file:
        file.write(draw(*read(args.log)))


if __name__ == "__main__":
    main()
