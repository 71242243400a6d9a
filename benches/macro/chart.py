"""Draws what was measured as one SVG: a group of bars for each scenario and variant, CPU a request."""

from html import escape

COLOURS = {
    "Limen": "#0b7a75",
    "Envoy": "#c1666b",
    "nginx": "#5b8c5a",
    "HAProxy": "#4a6fa5",
    "bare Pingora": "#999999",
    "Traefik": "#8e6c8a",
    "Caddy": "#c9a227",
}
WIDTH, LABEL, BAR, GAP = 900, 130, 16, 40


def bars(scenarios):
    """Groups of (title, [(peer, value, words)]) in the order of the run."""
    groups = []
    for scenario in scenarios.values():
        by_variant = {}
        for row in scenario["rows"]:
            if "cpu_us" in row:
                by_variant.setdefault(row["variant"], []).append((row["peer"], row["cpu_us"], f"{row['cpu_us']:.1f} µs"))
        for variant, rows in by_variant.items():
            groups.append((scenario["title"] + (f": {variant}" if variant else ""), rows))
    return groups


def svg(scenarios):
    """The picture as text."""
    parts, y = [], 40
    for title, rows in bars(scenarios):
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(title)}</text>')
        y += 10
        most = max(value for _, value, _ in rows) or 1
        for peer, value, words in sorted(rows, key=lambda row: row[1]):
            length = max(1, (WIDTH - LABEL - 110) * value / most)
            parts.append(f'<text x="{LABEL - 8}" y="{y + BAR - 4}" text-anchor="end">{escape(peer)}</text>')
            parts.append(f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{COLOURS.get(peer, "#555555")}"/>')
            parts.append(f'<text x="{LABEL + length + 6:.1f}" y="{y + BAR - 4}">{escape(words)}</text>')
            y += BAR + 2
        y += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="13">'
    ground = f'<rect width="{WIDTH}" height="{y}" fill="white"/><text x="10" y="18">CPU time of the proxy for a request; shorter is better</text>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"
